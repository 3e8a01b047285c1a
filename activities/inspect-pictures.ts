import { Context } from '@temporalio/activity';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { dataReportKey } from '../common/checkpoint-manifest.ts';
import { faultPoint } from '../common/fault-point.ts';
import { reasonOf } from '../common/logger.ts';
import { trainingConfigFor } from '../common/training-config.ts';
import type { InspectPicturesInput, InspectPicturesResult } from '../common/activity-types.ts';
import type { TrainingConfig } from '../common/types.ts';
import type { DataReport } from '../native/trainer/data-report.ts';
import { reportTable } from '../native/trainer/report-table.ts';
import { doubtsForHistory, logReport } from './data-report-lines.ts';
import type { PicturesDependencies } from './dependencies.ts';
import { heartbeatDirectly } from './direct-heartbeat.ts';
import { fetchPictures, pictureHash } from './fetch-pictures.ts';
import type { FetchedPicture } from './fetch-pictures.ts';
import { KeptPictures } from './kept-pictures.ts';

const ASK_LIMIT_MS = 2_000;

/**
 * Looks at a job's pictures and captions before any pod is taken, by the same code and the same rules as `download`, and
 * puts a report on them into the bucket. Pictures that come by URL, which may expire, are kept there too. The pod fetches and verifies for itself.
 *
 * @throws what is wrong with the pictures, all of them named at once, see `fetchPictures`
 */
export async function inspectPictures(
  input: InspectPicturesInput,
  deps: PicturesDependencies,
): Promise<InspectPicturesResult> {
  const { cancellationSignal: signal } = Context.current();
  await faultPoint('inspect:begin', input.taskId);
  // Somebody may have swept it away.
  await mkdir(deps.scratch, { recursive: true });
  const directory = await mkdtemp(path.join(deps.scratch, 'pictures-'));
  try {
    return await look(input, directory, signal, deps);
  } catch (error) {
    // What an aborted call fails with says nothing: the reason of the abort does.
    throw signal.aborted ? signal.reason : error;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function look(
  input: InspectPicturesInput,
  directory: string,
  signal: AbortSignal,
  deps: PicturesDependencies,
): Promise<InspectPicturesResult> {
  const { images, tags, parameters } = input;
  // The precision is the pod's matter and changes nothing about pictures.
  const config = trainingConfigFor(parameters, deps.recipe, { imageCount: images.length, mixedPrecisionDefault: 'no' });
  const { resolutionPx, resizeMode, triggerWord } = config;
  let done = 0;
  const kept = new KeptPictures(input, deps);
  const { pictures, report, fault } = await fetchPictures(images, {
    store: deps.store,
    kept,
    rules: deps.imageRules,
    directory,
    fallbackCaption: tags.length > 0 ? tags.join(', ') : deps.instancePrompt,
    hashes: null,
    plan: { resolutionPx, resizeMode, triggerWord },
    signal,
    onPicture: () => {
      done += 1;
      Context.current().heartbeat({ pictures: done, total: images.length });
    },
  });
  logReport(report);
  await faultPoint('inspect:end', input.taskId);
  const reportUri = await writeReport(input, report, config, deps);
  if (fault !== null) throw fault;
  await keepPictures(pictures, directory, kept);
  const pictureHashes = pictures.map(({ report: { captionFrom }, ...picture }) =>
    pictureHash({ ...picture, captionFrom }),
  );
  return { doubts: doubtsForHistory(report, 'the data report'), reportUri, pictureHashes };
}

/** Those that came by URL: the pods, and the job when it is redone, find them in the bucket. */
async function keepPictures(pictures: readonly FetchedPicture[], directory: string, kept: KeptPictures): Promise<void> {
  const { cancellationSignal: signal } = Context.current();
  const byUrl = pictures.flatMap(({ url, name, report }) =>
    url === null ? [] : [{ uri: url, name, hasCaption: report.captionFrom === 'file' }],
  );
  if (byUrl.length === 0 || (await heartbeatDirectly(ASK_LIMIT_MS)) === 'unknown') return;
  await kept.keep(byUrl, directory, signal);
}

/** The report is for people: a store that does not take it holds no job up, and hides no fault of the pictures. */
async function writeReport(
  job: InspectPicturesInput,
  report: DataReport,
  config: TrainingConfig,
  { store, bucket, uriScheme }: PicturesDependencies,
): Promise<string | null> {
  const { cancellationSignal: signal, log } = Context.current();
  try {
    // Nobody tells an attempt whose job was reset or terminated, but it may write nothing more.
    if ((await heartbeatDirectly(ASK_LIMIT_MS)) === 'unknown') return null;
    const key = dataReportKey(job, 'json');
    await store.put({ bucket, key: dataReportKey(job, 'txt') }, `${reportTable(report, config)}\n`, { signal });
    await store.put({ bucket, key }, `${JSON.stringify(report, null, 2)}\n`, { signal });
    return `${uriScheme}://${bucket}/${key}`;
  } catch (error) {
    signal.throwIfAborted();
    log.warn('the data report was not written', { reason: reasonOf(error) });
    return null;
  }
}
