import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connect } from 'amqplib';
import { TestService } from './support/service.ts';
import type { JobMessage } from './support/service.ts';
import { until } from './support/until.ts';
import type { WorkerProcess } from './support/worker-process.ts';

const EPOCHS = 2;
const DEAD_QUEUE = 'model_training.dead';
/** RabbitMQ gives the messages of a silent bridge to another one after two or three of these. */
const HEARTBEAT_SECONDS = 6;

describe('the backend hears one truth about a style', function () {
  this.timeout(150_000);
  let service: TestService;
  let armed: string;

  before(async () => {
    service = await TestService.start();
    armed = path.join(service.directory, 'armed');
    mkdirSync(armed);
    await service.startWorker(['control']);
  });
  after(() => service.stop());
  afterEach(() => service.backend.setBehaviour(null));

  function startBridge(): Promise<WorkerProcess> {
    const url = new URL(service.stack.amqpUrl);
    url.searchParams.set('heartbeat', String(HEARTBEAT_SECONDS));
    return service.startWorker(['bridge'], { RABBITMQ_URL: url.href, BRUSHWORK_FAULT_POINTS: armed });
  }

  let pod: Promise<WorkerProcess> | null = null;
  const startPod = () => (pod ??= service.startWorker(['pod']));

  async function deadLetters(): Promise<number> {
    const connection = await connect(service.stack.amqpUrl);
    const channel = await connection.createChannel();
    const { messageCount } = await channel.assertQueue(DEAD_QUEUE, { durable: true });
    await connection.close();
    return messageCount;
  }

  const isDuplicate =
    ({ taskId }: JobMessage) =>
    ({ msg, task }: { msg: string; task?: unknown }) =>
      task === taskId && msg.startsWith('duplicate message');
  const kindsOf = (job: JobMessage) => service.finalNotices(job).map(({ kind }) => kind);

  it('when a task whose bridge froze before the acknowledgement comes again while, and after, its correction trains', async () => {
    const corrected = service.job(EPOCHS);
    const wrong = { ...corrected, taskId: `${corrected.taskId}-wrong`, images: [...corrected.images] };
    wrong.images[4] = 's3://brushwork/pictures/lost.png';

    const frozen = await startBridge();
    writeFileSync(path.join(armed, `bridge:started.${wrong.taskId}`), '');
    await service.publish(wrong);
    const reached = path.join(armed, `bridge:started.${wrong.taskId}.${frozen.pid}`);
    await until(() => existsSync(reached), 'the bridge to have started the wrong task');
    process.kill(frozen.pid!, 'SIGSTOP');
    const other = await startBridge();
    await assert.rejects(service.resultOf(wrong));
    await service.publish(corrected);
    await other.waitForLine(({ msg, task }) => msg === 'training started' && task === corrected.taskId, 'correction');

    // It trains only once there is a pod.
    await other.waitForLine(isDuplicate(wrong), 'the wrong task to come again');
    process.kill(frozen.pid!, 'SIGCONT');
    rmSync(reached);
    await startPod();
    assert.equal((await service.resultOf(corrected)).epochs, EPOCHS);
    const sessions = () => frozen.lines.filter(({ msg }) => msg === 'waiting for job messages').length;
    await until(() => sessions() === 2, 'the frozen bridge to take messages again');

    const repeats = () => [...frozen.lines, ...other.lines].filter(isDuplicate(wrong)).length;
    const before = repeats();
    await service.publish(wrong);
    await until(
      () => repeats() > before,
      () => `the wrong task to come once more; logs:\n${service.tails()}`,
    );
    assert.deepEqual(kindsOf(corrected), ['failed', 'complete']);
    assert.equal((await service.handleOf(corrected).describe()).memo?.['taskId'], corrected.taskId);
    assert.equal(await deadLetters(), 0);
    assert.deepEqual(readdirSync(armed), []);
    await Promise.all([frozen.kill(), other.kill()]);
  });

  it('when it was down for a refusal and for the start of the corrected task, which it then hears of alone', async () => {
    const [bridge] = await Promise.all([startBridge(), startPod()]);
    const corrected = service.job(EPOCHS);
    service.backend.setBehaviour({ kinds: ['failed'], status: 503 });
    await service.publish({ ...corrected, taskId: 'with spaces' });
    const ofStyle = ({ body }: { body: Record<string, unknown> | null }) => body?.['style_id'] === corrected.styleId;
    await service.backend.waitFor((request) => request.kind === 'failed' && ofStyle(request));

    await service.publish(corrected);
    assert.equal((await service.resultOf(await started(corrected))).epochs, EPOCHS);
    service.backend.setBehaviour(null);
    const refusal = await onlyRefusal();
    assert.match((await refusal.result()) as string, new RegExp(`in training since.*${corrected.taskId}`));
    assert.deepEqual(kindsOf(corrected), ['complete']);
    await bridge.kill();
  });

  async function started(job: JobMessage): Promise<JobMessage> {
    await service.waitForStatus(job, () => true, 'start of the job');
    return job;
  }

  async function onlyRefusal() {
    const refusals: string[] = [];
    for await (const { workflowId } of service.client.workflow.list({ query: `WorkflowType = 'tellRefusal'` })) {
      refusals.push(workflowId);
    }
    assert.equal(refusals.length, 1);
    return service.client.workflow.getHandle(refusals[0]!);
  }
});
