import { mkdir, readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import { writeLossChart } from '../../cli/loss-chart.ts';
import type { ObjectStore } from '../../common/object-store.ts';
import type { CheckpointRef, ValidationLoss } from '../../common/types.ts';

/**
 * Copies a job's weights from the bucket.
 *
 * @param store - the bucket's store
 * @param bucket - its name
 * @param styleId - whose weights
 * @param directory - gets them under their own names
 * @returns the file for diffusers
 */
export async function fetchWeights(
  store: ObjectStore,
  bucket: string,
  styleId: number,
  directory: string,
): Promise<string> {
  const prefix = `models/style_${styleId}/`;
  for (const key of await store.list(bucket, prefix)) {
    const file = path.join(directory, key.slice(prefix.length));
    await mkdir(path.dirname(file), { recursive: true });
    await store.downloadFile({ bucket, key }, file, { maxBytes: 2 ** 30 });
  }
  return path.join(directory, 'lora_weights.safetensors');
}

/**
 * Draws the loss curve that the workflow knows.
 *
 * @param handle - the finished job
 * @param file - PNG to write
 */
export async function drawLossCurve(handle: WorkflowHandle, file: string): Promise<void> {
  const epochLosses = await handle.query<number[]>('lossCurve');
  const validationLosses = await handle.query<ValidationLoss[]>('validationCurve');
  await writeLossChart({ epochLosses, stepLosses: [], validationLosses }, file);
}

/**
 * Copies the contact sheet of a job's last checkpoint from the bucket.
 *
 * @param store - the bucket's store
 * @param bucket - its name
 * @param handle - the finished job
 * @param file - PNG to write
 * @returns false when none was drawn
 */
export async function fetchPreview(
  store: ObjectStore,
  bucket: string,
  handle: WorkflowHandle,
  file: string,
): Promise<boolean> {
  const [newest] = await handle.query<CheckpointRef[]>('checkpoints');
  const key = newest?.previewKey;
  if (key === undefined) return false;
  return (await store.downloadFile({ bucket, key }, file, { maxBytes: 2 ** 28 })) !== null;
}

/**
 * Puts a folder of pictures and captions into the bucket.
 *
 * @param store - the bucket's store
 * @param bucket - its name
 * @param directory - the folder
 * @param prefix - of the keys, ends with a slash
 * @returns the pictures' URIs
 */
export async function uploadPictures(
  store: ObjectStore,
  bucket: string,
  directory: string,
  prefix: string,
): Promise<string[]> {
  const names = (await readdir(directory)).filter((name) => /\.(jpg|txt)$/.test(name)).sort();
  await Promise.all(
    names.map(async (name) => store.put({ bucket, key: prefix + name }, await readFile(path.join(directory, name)))),
  );
  return names.filter((name) => name.endsWith('.jpg')).map((name) => `s3://${bucket}/${prefix}${name}`);
}
