import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parse, stringify } from 'yaml';
import { overlay } from '../../common/config-source.ts';
import { S3Proxy } from '../faults/support/s3-proxy.ts';
import { TestService } from './support/service.ts';

/** More than any disk has. */
const TOO_MUCH_MIB = 2 ** 30;
const LEAVE_LIMIT_MS = 5_000;

describe('a worker that can not do its work', function () {
  this.timeout(120_000);
  let service: TestService;

  before(async () => {
    service = await TestService.start({ overrides: { pod: { minFreeDiskMiB: TOO_MUCH_MIB } } });
    await service.startWorker(['bridge', 'control']);
  });
  after(() => service.stop());

  /** Settings of a pod that has all it needs. */
  function fitConfig(): string {
    const file = path.join(service.directory, 'fit.yaml');
    const shared = parse(readFileSync(path.join(service.directory, 'overrides.yaml'), 'utf8')) as object;
    writeFileSync(file, stringify(overlay(shared, { pod: { minFreeDiskMiB: 0 } })));
    return file;
  }

  it('leaves the job to others and says why, and goes when it is asked to', async () => {
    const unfit = await service.startWorker(['pod']);
    const job = service.job(1);
    await service.publish(job);
    const { fault } = await unfit.waitForLine(({ msg }) => msg === 'pod takes no jobs', 'why it takes none');
    assert.match(String(fault), /^Less than \d+ MiB \(pod\.minFreeDiskMiB\) are free in /);
    await service.waitForStatus(job, ({ phase }) => phase === 'waiting-for-pod', 'a job without a pod');

    const fit = await service.startWorker(['pod'], { BRUSHWORK_CONFIG: fitConfig() });
    assert.equal((await service.resultOf(job)).podLosses, 0);
    const askedAtMs = Date.now();
    assert.equal(await unfit.stop(), 0);
    assert.ok(Date.now() - askedAtMs < LEAVE_LIMIT_MS, `it took ${Date.now() - askedAtMs} ms to leave`);
    assert.equal(await fit.stop(), 0);
  });

  for (const role of ['control', 'pod'] as const) {
    it(`does not start where the store ignores conditional writes (${role})`, async () => {
      const proxy = new S3Proxy(service.stack.s3.endpoint);
      proxy.spoil({ method: 'PUT', path: /\.brushwork-probe/, flaw: 'unconditional', times: Infinity });
      try {
        const env = { AWS_ENDPOINT_URL: `http://${await proxy.enter()}`, BRUSHWORK_CONFIG: fitConfig() };
        await assert.rejects(service.startWorker([role], env), /ignores conditional writes \(If-None-Match\)/);
      } finally {
        await proxy.close();
      }
    });
  }
});
