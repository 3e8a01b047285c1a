import assert from 'node:assert/strict';
import { captionLocation, parseImageUri, redactUri } from '../../../common/image-uri.ts';
import type { ImageLocation } from '../../../common/object-store.ts';

const AWS = { endpoint: null, fileUriRoot: null };
const OWN = { endpoint: 'http://minio.internal:9000', fileUriRoot: '/srv/images' };

const object = (bucket: string, key: string): ImageLocation => ({ kind: 'object', bucket, key });

describe('parseImageUri', () => {
  const readable: [string, typeof AWS | typeof OWN, ImageLocation][] = [
    ['s3://bucket/a/b.jpg', AWS, object('bucket', 'a/b.jpg')],
    ['S3://bucket/a.jpg', AWS, object('bucket', 'a.jpg')],
    ['s3://bucket/a%20b?c#d.jpg', AWS, object('bucket', 'a%20b?c#d.jpg')],
    ['s3://bucket/그림/ü.png', AWS, object('bucket', '그림/ü.png')],
    ['gs://bucket/a.jpg', OWN, object('bucket', 'a.jpg')],
    ['https://bucket.s3.amazonaws.com/a/b.jpg', AWS, object('bucket', 'a/b.jpg')],
    ['https://bucket.s3.ap-northeast-2.amazonaws.com/a%20b.jpg', AWS, object('bucket', 'a b.jpg')],
    ['https://my.dotted.bucket.s3-eu-west-1.amazonaws.com/a.jpg', AWS, object('my.dotted.bucket', 'a.jpg')],
    ['https://bucket.s3.dualstack.eu-west-1.amazonaws.com/a.jpg', AWS, object('bucket', 'a.jpg')],
    ['https://s3.ap-northeast-2.amazonaws.com/bucket/a/b.jpg', AWS, object('bucket', 'a/b.jpg')],
    ['https://s3.amazonaws.com/bucket/%EA%B7%B8.jpg', AWS, object('bucket', '그.jpg')],
    ['http://minio.internal:9000/bucket/a+b.jpg', OWN, object('bucket', 'a+b.jpg')],
    ['http://bucket.minio.internal:9000/a.jpg', OWN, object('bucket', 'a.jpg')],
    ['https://cdn.example.com/a.jpg', AWS, { kind: 'url', url: 'https://cdn.example.com/a.jpg' }],
    ['https://bucket.s3.amazonaws.com/a.jpg', OWN, { kind: 'url', url: 'https://bucket.s3.amazonaws.com/a.jpg' }],
    [
      'https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Signature=abc',
      AWS,
      { kind: 'url', url: 'https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Signature=abc' },
    ],
    [
      'http://minio.internal:9000/bucket/a.jpg?X-Amz-Signature=abc',
      OWN,
      { kind: 'url', url: 'http://minio.internal:9000/bucket/a.jpg?X-Amz-Signature=abc' },
    ],
    ['file:///srv/images/a%20b.jpg', OWN, { kind: 'file', file: '/srv/images/a b.jpg' }],
  ];
  for (const [uri, rules, location] of readable) {
    it(`reads ${uri}${rules === OWN ? ' with an endpoint of our own' : ''}`, () => {
      assert.deepEqual(parseImageUri(uri, rules), location);
    });
  }

  const refused: [string, string, typeof AWS | typeof OWN, string][] = [
    ['no scheme', '/etc/passwd', AWS, 'InvalidRequestError'],
    ['an unknown scheme', 'ftp://host/a.jpg', AWS, 'InvalidRequestError'],
    ['data URIs', 'data:image/png;base64,AAAA', AWS, 'InvalidRequestError'],
    ['no bucket', 's3:///a.jpg', AWS, 'InvalidRequestError'],
    ['a bucket with a path in it', 's3://../a.jpg', AWS, 'InvalidRequestError'],
    ['no key', 's3://bucket', AWS, 'InvalidRequestError'],
    ['a folder', 's3://bucket/a/', AWS, 'InvalidRequestError'],
    ['a key above the bucket', 's3://bucket/a/../../b.jpg', AWS, 'BlockedTargetError'],
    ['an escaped key above the bucket', 'https://s3.amazonaws.com/bucket/a%2F..%2F..%2Fb', AWS, 'BlockedTargetError'],
    ['a NUL in the key', 's3://bucket/a\0.jpg', AWS, 'InvalidRequestError'],
    ['a key that is too long', `s3://bucket/${'a'.repeat(1025)}`, AWS, 'InvalidRequestError'],
    ['a broken percent escape', 'https://s3.amazonaws.com/bucket/a%ZZ.jpg', AWS, 'InvalidRequestError'],
    ['Google storage while on AWS', 'gs://bucket/a.jpg', AWS, 'BlockedTargetError'],
    ['plain http elsewhere', 'http://cdn.example.com/a.jpg', OWN, 'BlockedTargetError'],
    ['a password in the URL', 'https://u:p@cdn.example.com/a.jpg', AWS, 'BlockedTargetError'],
    ['a URL without host', 'https:///', AWS, 'InvalidRequestError'],
    ['local files where none are allowed', 'file:///srv/images/a.jpg', AWS, 'BlockedTargetError'],
    ['local files elsewhere', 'file:///etc/passwd', OWN, 'BlockedTargetError'],
    ['local files beside the allowed directory', 'file:///srv/images-private/a.jpg', OWN, 'BlockedTargetError'],
    ['local files above the allowed directory', 'file:///srv/images/../a.jpg', OWN, 'BlockedTargetError'],
    ['the allowed directory itself', 'file:///srv/images/', OWN, 'BlockedTargetError'],
    ['an escaped slash in a file', 'file:///srv/images/..%2Fa.jpg', OWN, 'InvalidRequestError'],
    ['a file on another host', 'file://host/srv/images/a.jpg', OWN, 'InvalidRequestError'],
  ];
  for (const [what, uri, rules, name] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parseImageUri(uri, rules), { name });
    });
  }

  it('shows neither signature nor password in errors', () => {
    for (const uri of ['http://a.example.com/x?X-Amz-Signature=topsecret', 'https://u:topsecret@a.example.com/x']) {
      assert.throws(
        () => parseImageUri(uri, AWS),
        (error: Error) => !error.message.includes('topsecret'),
      );
    }
  });
});

describe('redactUri', () => {
  it('drops query, fragment and user info', () => {
    assert.equal(redactUri('https://u:p@h/a?sig=1#x'), 'https://h/a');
    assert.equal(redactUri('s3://b/k'), 's3://b/k');
  });
});

describe('captionLocation', () => {
  const cases: [ImageLocation, ImageLocation | null][] = [
    [object('b', 'a/b.jpg'), object('b', 'a/b.txt')],
    [object('b', 'a.b/c'), object('b', 'a.b/c.txt')],
    [object('b', 'a/.jpg'), object('b', 'a/.jpg.txt')],
    [object('b', 'a.tar.png'), object('b', 'a.tar.txt')],
    [
      { kind: 'file', file: '/srv/a.webp' },
      { kind: 'file', file: '/srv/a.txt' },
    ],
    [
      { kind: 'url', url: 'https://h/a%20b.jpg' },
      { kind: 'url', url: 'https://h/a%20b.txt' },
    ],
    [{ kind: 'url', url: 'https://h/a.jpg?X-Amz-Signature=1' }, null],
  ];
  for (const [image, caption] of cases) {
    it(`of ${JSON.stringify(image)} is ${JSON.stringify(caption)}`, () => {
      assert.deepEqual(captionLocation(image), caption);
    });
  }
});
