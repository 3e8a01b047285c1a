import { createHash } from 'node:crypto';
import { InvalidRequestError } from '../common/errors.ts';
import type { RequestedParameters } from '../common/types.ts';
import { Fields } from './fields.ts';

/** Longer messages are refused unread. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** More levels of brackets than any job message has. */
const MAX_JSON_DEPTH = 16;

/** Usable as part of an object key and of a workflow's memo. */
const TASK_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The only kind of message that belongs on this queue. */
const MESSAGE_TYPE = 'model_training';

/** A job as a message describes it, in either shape. */
export interface JobMessage {
  styleId: number;
  taskId: string;
  /** False where the message brought no task id, so that it was made from the content. */
  namesTask: boolean;
  images: string[];
  tags: string[];
  parameters: RequestedParameters;
  /** As sent: only its origin counts. */
  webhookUrl: string;
  /** Paths of fields that the contract does not know. */
  unknownFields: string[];
}

/**
 * Reads a job message in either of the contract's shapes. Refuses what can't be handed to a workflow; whether the job
 * itself makes sense is for the workflow to say, which can tell the backend.
 *
 * @param content - the message's body
 * @throws InvalidRequestError naming all faults at once
 */
export function parseJobMessage(content: Buffer): JobMessage {
  const body = parseObject(content);
  const faults: string[] = [];
  const message = 'data' in body ? readEnvelope(body, faults) : readFlat(body, faults);
  if (faults.length > 0) throw new InvalidRequestError(`The job message is not usable: ${faults.join('; ')}.`);
  return message;
}

/** Whom a message that can't be processed is about. */
export interface Addressee {
  styleId: number;
  /** As sent, or empty: whether it may be called is not checked here. */
  webhookUrl: string;
}

/**
 * Reads of a message that {@link parseJobMessage} refuses, or whose job is refused later, whom to tell.
 *
 * @param content - the message's body
 * @returns null when it names no style
 */
export function addresseeOf(content: Buffer): Addressee | null {
  let body: Record<string, unknown>;
  try {
    body = parseObject(content);
  } catch {
    return null;
  }
  const { styleId, webhookUrl } = 'data' in body ? readEnvelope(body, []) : readFlat(body, []);
  return styleId === 0 ? null : { styleId, webhookUrl };
}

function parseObject(content: Buffer): Record<string, unknown> {
  if (content.byteLength > MAX_MESSAGE_BYTES) {
    throw new InvalidRequestError(
      `The message has ${content.byteLength} bytes; at most ${MAX_MESSAGE_BYTES} are read.`,
    );
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch (error) {
    throw new InvalidRequestError('The message is not UTF-8 text.', { cause: error });
  }
  if (isDeeperThan(text, MAX_JSON_DEPTH)) {
    throw new InvalidRequestError(`The message is nested deeper than ${MAX_JSON_DEPTH} levels.`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidRequestError('The message is not valid JSON.', { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidRequestError('The message is not a JSON object.');
  }
  return value as Record<string, unknown>;
}

/** Counts brackets outside of strings, before anything is built from them. */
function isDeeperThan(text: string, limit: number): boolean {
  let depth = 0;
  let isInString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (isInString) {
      if (character === '\\') index++;
      else if (character === '"') isInString = false;
    } else if (character === '"') {
      isInString = true;
    } else if (character === '{' || character === '[') {
      if (++depth > limit) return true;
    } else if (character === '}' || character === ']') {
      depth--;
    }
  }
  return false;
}

function readEnvelope(body: Record<string, unknown>, faults: string[]): JobMessage {
  const envelope = new Fields('', body, faults);
  const type = envelope.optionalText('type');
  if (type !== null && type !== MESSAGE_TYPE) faults.push(`type must be "${MESSAGE_TYPE}"`);
  const taskId = envelope.text('task_id');
  if (taskId !== '' && !TASK_ID.test(taskId))
    faults.push('task_id must be a UUID (letters, digits, ".", "_", "-"; at most 128)');
  const webhookUrl = envelope.text('webhook_url');
  envelope.ignore('callback_url', 'created_at');
  const data = envelope.object('data');
  const message = { ...readJob(data, data.texts('images')), taskId, namesTask: true, webhookUrl };
  return { ...message, unknownFields: [...envelope.unknown(), ...message.unknownFields] };
}

function readFlat(body: Record<string, unknown>, faults: string[]): JobMessage {
  const fields = new Fields('', body, faults);
  const webhookUrl = fields.text('webhook_url');
  const given = fields.optionalText('task_id');
  if (given !== null && !TASK_ID.test(given))
    faults.push('task_id must be a UUID (letters, digits, ".", "_", "-"; at most 128)');
  fields.ignore('type', 'callback_url', 'created_at');
  const task = { taskId: given ?? taskIdOf(body), namesTask: given !== null };
  return { ...readJob(fields, fields.texts('image_urls')), ...task, webhookUrl };
}

function readJob(fields: Fields, images: string[]): Omit<JobMessage, 'taskId' | 'namesTask' | 'webhookUrl'> {
  const styleId = fields.positiveInteger('style_id');
  const tags = fields.optionalTexts('tags');
  const given = fields.optionalObject('parameters');
  const parameters = {
    epochs: given?.optionalNumber('epochs') ?? null,
    learningRate: given?.optionalNumber('learning_rate') ?? null,
    batchSize: given?.optionalNumber('batch_size') ?? null,
  };
  return { styleId, images, tags, parameters, unknownFields: [...fields.unknown(), ...(given?.unknown() ?? [])] };
}

/**
 * A task id for messages that bring none: the same for the same message, so that a redelivered one is known again.
 * Written as a UUID of version 8, the version for ids of one's own making (RFC 9562).
 */
function taskIdOf(body: Record<string, unknown>): string {
  const hash = createHash('sha256').update(canonicalJson(body)).digest().subarray(0, 16);
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x80, 6);
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8);
  return hash.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(',')}}`;
}
