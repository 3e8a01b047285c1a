import type { TrainPhase, TrainStatus } from '../common/types.ts';

const DOING: Record<TrainPhase, string> = {
  queued: 'Queued',
  'waiting-for-pod': 'Waiting for a pod',
  preparing: 'Preparing pictures and model',
  training: 'Training',
  publishing: 'Publishing the weights',
  notifying: 'Telling the backend',
  paused: 'Paused',
  'awaiting-operator': '**Waiting for an operator**',
  done: 'Done',
  failed: 'Failed',
  cancelled: 'Cancelled',
};

function row(name: string, value: string): string {
  return `| ${name} | ${value.replaceAll('|', '\\|').replaceAll('\n', ' ')} |`;
}

/** File names are others': nothing in them is Markdown. */
function item(text: string): string {
  return `- ${text.replaceAll(/[\\`*_{}[\]<>()#!|~&]/g, '\\$&').replaceAll('\n', ' ')}`;
}

/**
 * The job at a glance, as Markdown for the Web UI.
 *
 * @param status - where the job stands
 */
export function currentDetails(status: TrainStatus): string {
  const { phase, reason, epoch, totalEpochs, loss, validationLoss, earlyStop } = status;
  const { host, gpu, lastCheckpoint, podLosses, lastError, dataDoubts, dataReport } = status;
  const previewKey = lastCheckpoint?.previewKey;
  const lines = [
    `### Style ${status.styleId}: ${DOING[phase]}`,
    ...(reason === null ? [] : ['', reason]),
    '',
    '| | |',
    '| --- | --- |',
    row('Phase', phase),
    row('Epoch', totalEpochs === null ? String(epoch) : `${epoch} of ${totalEpochs}`),
    row('Loss', loss === null ? 'none yet' : loss.toPrecision(4)),
    ...(validationLoss === null ? [] : [row('Validation loss', validationLoss.toPrecision(4))]),
    ...(earlyStop === null ? [] : [row('Stopped early', earlyStop)]),
    row('Pod', host === null ? 'none' : `${host} (${gpu ?? 'cpu'})`),
    row('Last checkpoint', lastCheckpoint === null ? 'none yet' : `epoch ${lastCheckpoint.epoch}`),
    // Before the rest: the Web UI shows about six rows without scrolling.
    ...(lastError === null ? [] : [row('Last error', `${lastError.code}: ${lastError.message}`)]),
    row('Pods lost', String(podLosses)),
    row('Task', status.taskId),
    ...(dataReport === null ? [] : [row('Data report', dataReport)]),
    ...(previewKey === undefined ? [] : [row('Contact sheet', previewKey)]),
    ...(dataDoubts.length === 0 ? [] : ['', 'Doubtful about the pictures:', '', ...dataDoubts.map(item)]),
  ];
  return lines.join('\n');
}
