import { createHash } from 'node:crypto';
import path from 'node:path';
import type { ImageLocation } from '../common/object-store.ts';
import { captionFile } from '../native/trainer/caption.ts';
import { hasPictureExtension } from '../native/trainer/dataset.ts';

const FALLBACK_EXTENSION = '.png';
const MAX_NAME_BYTES = 180;

/** Last part of the path, as a file may be called; a name without a picture's extension gets one. */
function baseName(location: ImageLocation): string {
  const last = path.posix.basename(pathOf(location));
  // Slashes can come out of percent escapes; a leading dot would hide the file.
  const name = last.replaceAll(/[/\\]/g, '_').replace(/^\.+/, '');
  return shortened(hasPictureExtension(name) ? name : `${name}${FALLBACK_EXTENSION}`);
}

/** File systems take 255 bytes, and a download adds some of its own. Where a name is cut, a hash keeps it apart. */
function shortened(name: string): string {
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
  const end = `-${createHash('sha256').update(name).digest('hex').slice(0, 16)}${path.extname(name)}`;
  let start = '';
  for (const character of name) {
    if (Buffer.byteLength(start + character + end) > MAX_NAME_BYTES) break;
    start += character;
  }
  return start + end;
}

function pathOf(location: ImageLocation): string {
  switch (location.kind) {
    case 'object':
      return location.key;
    case 'file':
      return location.file.split(path.sep).join('/');
    case 'url':
      return decoded(new URL(location.url).pathname);
  }
}

function decoded(pathname: string): string {
  try {
    return decodeURIComponent(pathname);
  } catch {
    return pathname;
  }
}

/** Folder that a picture comes from: same folder and same stem share one caption. */
function sourceFolder(location: ImageLocation): string {
  const folder = path.posix.dirname(pathOf(location));
  if (location.kind === 'object') return `${location.bucket}/${folder}`;
  return location.kind === 'url' ? `${new URL(location.url).origin}${folder}` : folder;
}

/**
 * Names for a job's pictures on the pod's disk: their own, so that they sort (and train) as in a directory of the same
 * pictures; numbered when two of them, or their captions, would collide.
 *
 * @param locations - in the order of the message
 * @returns as many names, all different
 */
export function pictureNames(locations: readonly ImageLocation[]): string[] {
  const names = locations.map(baseName);
  const captionSources = new Map<string, string>();
  const collide = locations.some((location, index) => {
    const caption = captionFile(names[index] ?? '').toLowerCase();
    const source = captionSources.get(caption) ?? sourceFolder(location);
    captionSources.set(caption, source);
    return source !== sourceFolder(location);
  });
  const unique = new Set(names.map((name) => name.toLowerCase())).size === names.length;
  if (unique && !collide) return names;
  const digits = String(names.length).length;
  return names.map((name, index) => `${String(index + 1).padStart(digits, '0')}-${name}`);
}
