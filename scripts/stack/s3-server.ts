import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { CreateBucketCommand, HeadBucketCommand, ListBucketsCommand, S3Client } from '@aws-sdk/client-s3';
import { versitygwPath } from '../setup/versitygw.mjs';
import { Part } from './part.ts';

/** How to reach an S3 server. */
export interface S3Access {
  /** e.g. `http://127.0.0.1:15002`; address buckets by path. */
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
}

/** A client for the stack's S3 server; the caller destroys it. */
export function s3Client(access: S3Access): S3Client {
  return new S3Client({
    endpoint: access.endpoint,
    region: access.region,
    credentials: { accessKeyId: access.accessKeyId, secretAccessKey: access.secretAccessKey },
    forcePathStyle: true,
    maxAttempts: 1,
  });
}

/**
 * A real S3 server that keeps its objects in files below `directory`.
 *
 * @param directory - holds its objects and log
 * @param port - where it listens
 * @param access - the keys it accepts
 * @param buckets - made when it starts
 */
export function s3Server(directory: string, port: number, access: S3Access, buckets: string[]): Part {
  const objects = path.join(directory, 's3/objects');
  const metadata = path.join(directory, 's3/metadata');
  mkdirSync(objects, { recursive: true });
  mkdirSync(metadata, { recursive: true });
  const checkHealth = async (): Promise<void> => {
    const client = s3Client(access);
    try {
      await client.send(new ListBucketsCommand({}));
      for (const bucket of buckets) {
        try {
          await client.send(new HeadBucketCommand({ Bucket: bucket }));
        } catch {
          await client.send(new CreateBucketCommand({ Bucket: bucket }));
        }
      }
    } finally {
      client.destroy();
    }
  };
  return new Part({
    name: 's3',
    // Metadata in files beside the objects: not every file system has extended attributes.
    command: [
      versitygwPath(),
      ...['--port', `127.0.0.1:${port}`, '--region', access.region],
      ...['posix', '--sidecar', metadata, objects],
    ],
    env: {
      PATH: process.env['PATH'],
      HOME: directory,
      ROOT_ACCESS_KEY_ID: access.accessKeyId,
      ROOT_SECRET_ACCESS_KEY: access.secretAccessKey,
    },
    logDirectory: directory,
    checkHealth,
  });
}
