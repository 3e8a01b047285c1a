import path from 'node:path';

/** Pictures and captions of a job on the pod's disk. */
export function imageDirectory(jobDirectory: string): string {
  return path.join(jobDirectory, 'images');
}

/** Checkpoints of a job on the pod's disk. */
export function checkpointDirectory(jobDirectory: string): string {
  return path.join(jobDirectory, 'checkpoints');
}

/** The checkpoint after `epoch` epochs; names sort like epochs. */
export function checkpointFile(jobDirectory: string, epoch: number): string {
  return path.join(checkpointDirectory(jobDirectory), `epoch-${String(epoch).padStart(6, '0')}.safetensors`);
}

/** Where contact sheets are drawn. */
export function previewDirectory(jobDirectory: string): string {
  return path.join(jobDirectory, 'previews');
}

/** Where the finished weights are written before they are uploaded. */
export function exportDirectory(jobDirectory: string): string {
  return path.join(jobDirectory, 'export');
}
