import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import type { BaseModel } from '../../../../activities/dependencies.ts';
import { resolveBaseModel } from '../../../../worker/base-model.ts';
import type { ResolveBaseModelOptions } from '../../../../worker/base-model.ts';
import { modelFiles, writeFiles } from '../../../support/model-layout.ts';

/** A model in diffusers layout, and a cache of its own to find it with. */
export interface BaseModelScene {
  directory: string;
  /** Inside `directory`. */
  model: string;
  resolve: (source: string, changes?: Partial<ResolveBaseModelOptions>) => Promise<BaseModel>;
}

/** Hands a scene of its own to each test of a `describe`. */
export function baseModelSceneForEachTest(assign: (scene: BaseModelScene) => void): void {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-model-'));
    const model = path.join(directory, 'my-model');
    writeFiles(model, modelFiles());
    const defaults: ResolveBaseModelOptions = {
      cacheDirectory: path.join(directory, 'cache'),
      hub: { endpoint: 'http://127.0.0.1:1', token: null },
      logger: pino({ level: 'silent' }),
      signal: new AbortController().signal,
    };
    assign({
      directory,
      model,
      resolve: (source, changes = {}) => resolveBaseModel(source, { ...defaults, ...changes }),
    });
  });

  afterEach(() => rmSync(directory, { recursive: true }));
}
