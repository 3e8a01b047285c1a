import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { downloadStatus } from './cache.mjs';
import { capture } from './shell.mjs';

/** Tags of the pinned wheels; given in full, since pip derives older ones from a newer one only sometimes. */
const PLATFORMS = [
  'manylinux_2_28_x86_64',
  'manylinux_2_27_x86_64',
  'manylinux_2_25_x86_64',
  'manylinux_2_17_x86_64',
  'manylinux2014_x86_64',
];

/** A wheel is a zip file; Python reads it, since not every machine has `unzip`. */
const UNPACK = `
import re, sys, zipfile
wheel, folder, *patterns = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for entry in archive.infolist():
        if not patterns or any(re.search(pattern, entry.filename) for pattern in patterns):
            path = archive.extract(entry, folder)
            mode = entry.external_attr >> 16
            if mode & 0o111 and not entry.is_dir():
                import os
                os.chmod(path, 0o755)
`;

/**
 * pip's requirements file for pinned wheels: pip itself refuses a file with another hash.
 *
 * @param {import('./pins.mjs').WheelPin[]} pins
 * @returns {string}
 */
export function requirementsFile(pins) {
  return pins.map((pin) => `${pin.name}==${pin.version} --hash=sha256:${pin.sha256}\n`).join('');
}

/**
 * Downloads wheels with pip, checks their hashes and unpacks what is wanted of them, without installing anything.
 *
 * @param {import('./pins.mjs').WheelPin[]} pins
 * @param {string} folder where the wheels' files go
 * @param {(status: (() => string) | string) => void} setStatus
 */
export async function unpackWheels(pins, folder, setStatus) {
  const work = join(folder, '.wheels');
  const temporary = join(work, 'tmp');
  const target = join(work, 'download');
  mkdirSync(temporary, { recursive: true });
  mkdirSync(target);
  const requirements = join(work, 'requirements.txt');
  writeFileSync(requirements, requirementsFile(pins));
  setStatus(
    downloadStatus(
      work,
      pins.reduce((sum, pin) => sum + pin.megabytes, 0),
    ),
  );
  await capture(
    'python3',
    [
      ...['-m', 'pip', 'download', '--quiet', '--no-deps', '--no-cache-dir', '--disable-pip-version-check'],
      ...['--require-hashes', '--requirement', requirements, '--dest', target],
      ...['--only-binary=:all:', '--implementation', 'cp', '--python-version', '3.11', '--abi', 'cp311'],
      ...['--abi', 'none', ...PLATFORMS.flatMap((platform) => ['--platform', platform])],
    ],
    // pip downloads to TMPDIR first; inside our folder its size tells the progress.
    { env: { ...process.env, TMPDIR: temporary } },
  );
  setStatus('unpacking');
  for (const pin of pins) {
    const start = `${pin.name.replaceAll('-', '_')}-`;
    const wheel = readdirSync(target).find((name) => name.replaceAll('-', '_').startsWith(start.replaceAll('-', '_')));
    if (!wheel) throw new Error(`pip downloaded no wheel for ${pin.name} ${pin.version}.`);
    await capture('python3', ['-c', UNPACK, join(target, wheel), folder, ...pin.keep]);
    rmSync(join(target, wheel));
  }
  rmSync(work, { recursive: true });
}
