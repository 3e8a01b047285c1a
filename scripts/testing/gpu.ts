import { existsSync, globSync } from 'node:fs';
import path from 'node:path';
import { setUpLibtorch } from '../setup/libtorch.mjs';
import { setUpReferencePython } from '../setup/reference-python.mjs';
import { capture, runInForeground, which } from '../setup/shell.mjs';

/** Why nothing can be tested here. */
class NoGpuError extends Error {}

/** Returns the GPUs by name. */
async function findGpus(): Promise<string> {
  const remedy = 'Nothing was tested. Run this on a machine with an NVIDIA GPU and a driver for CUDA 13.';
  if (!which('nvidia-smi')) throw new NoGpuError(`No GPU: there is no nvidia-smi on the PATH. ${remedy}`);
  try {
    return await capture('nvidia-smi', ['-L']);
  } catch (error) {
    throw new NoGpuError(`No GPU: ${error instanceof Error ? error.message : String(error)}\n${remedy}`);
  }
}

/** Returns the folder of a torch with CUDA's libraries: `LIBTORCH`, or that of the reference Python. */
async function findCudaTorch(): Promise<string> {
  const own = process.env['LIBTORCH'];
  const torch =
    own ?? globSync(path.join(await setUpReferencePython(), '../lib/python3*/site-packages/torch'))[0] ?? '';
  if (!existsSync(path.join(torch, 'lib/libtorch_cuda.so'))) {
    throw new NoGpuError(
      `No CUDA build of torch: there is no lib/libtorch_cuda.so in '${torch}'. Nothing was tested. ` +
        'Set LIBTORCH to the folder site-packages/torch of a Python that has torch with CUDA.',
    );
  }
  return torch;
}

/** Builds the core for CUDA and runs the tests that take a device on the first GPU. Returns the exit code. */
async function main(): Promise<number> {
  const root = path.join(import.meta.dirname, '../..');
  console.log((await findGpus()).trim());
  process.env['LIBTORCH'] = await findCudaTorch();
  const { libtorch, nlohmannInclude } = await setUpLibtorch();
  return runInForeground(
    'python3',
    [
      ...['bench/gpu.py', '--stages', 'build,tests', '--output', 'build/gpu-tests'],
      ...['--libtorch', libtorch, '--json-headers', nlohmannInclude],
    ],
    { cwd: root },
  );
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof NoGpuError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
