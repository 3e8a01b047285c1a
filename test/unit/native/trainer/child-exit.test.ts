import assert from 'node:assert/strict';
import { GpuFaultError, GpuOutOfMemoryError } from '../../../../common/errors.ts';
import { countOutOfMemoryKills, describeExit } from '../../../../native/trainer/child-exit.ts';

describe('describeExit', () => {
  const exit = { code: null, signal: null, outOfMemoryKills: 0, device: null, lastLines: [] };

  it('names signal or code and quotes the last words', () => {
    assert.match(describeExit({ ...exit, signal: 'SIGBUS' }).message, /ended by SIGBUS/);
    const error = describeExit({ ...exit, code: 134, lastLines: ['CUDA error: an illegal memory access', 'abort'] });
    assert.ok(error instanceof GpuFaultError);
    assert.match(error.message, /exit code 134.*CUDA error: an illegal memory access \| abort/);
  });

  it('takes a kill for out of memory only when the kernel counted one', () => {
    assert.ok(describeExit({ ...exit, signal: 'SIGKILL' }) instanceof GpuFaultError);
    const error = describeExit({ ...exit, signal: 'SIGKILL', outOfMemoryKills: 1 });
    assert.ok(error instanceof GpuOutOfMemoryError);
    assert.match(error.message, /memory ran out\. Lower batch_size or resolution/);
    assert.ok(describeExit({ ...exit, signal: 'SIGSEGV', outOfMemoryKills: 1 }) instanceof GpuFaultError);
  });

  it('blames the GPU only where there may be one', () => {
    const messageOn = (device: 'cpu' | 'cuda' | null, signal: 'SIGKILL' | 'SIGSEGV') =>
      describeExit({ ...exit, device, signal }).message;
    assert.match(messageOn('cuda', 'SIGSEGV'), /check the GPU \(nvidia-smi, dmesg\)/);
    assert.match(messageOn(null, 'SIGSEGV'), /check the GPU/);
    assert.match(messageOn('cpu', 'SIGKILL'), /look for who kills it: want of memory \(dmesg/);
    assert.match(messageOn('cpu', 'SIGSEGV'), /check the memory of this machine/);
    assert.doesNotMatch(messageOn('cpu', 'SIGKILL') + messageOn('cpu', 'SIGSEGV'), /GPU|nvidia/);
  });

  for (const words of [
    'CUDA out of memory. Tried to allocate 2 GiB',
    'std::bad_alloc',
    "DefaultCPUAllocator: can't allocate memory",
  ]) {
    it(`takes "${words}" for out of memory`, () => {
      assert.ok(describeExit({ ...exit, signal: 'SIGABRT', lastLines: [words] }) instanceof GpuOutOfMemoryError);
    });
  }
});

describe('countOutOfMemoryKills', () => {
  it('is a count', () => assert.ok(Number.isInteger(countOutOfMemoryKills()) && countOutOfMemoryKills() >= 0));
});
