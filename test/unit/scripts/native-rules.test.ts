import assert from 'node:assert/strict';
import { findNativeFaults } from '../../../scripts/native-rules.ts';

describe('rules of native/', () => {
  it('refuses a Node header outside native/binding/', () => {
    const text = '#pragma once\n# include <napi.h>\n';
    assert.deepEqual(findNativeFaults('native/core/train/step.h', text), [
      'native/core/train/step.h includes napi.h: only native/binding/ may know Node.',
    ]);
    assert.deepEqual(findNativeFaults('native/binding/addon.cc', text), []);
  });

  it('refuses a file of more than 500 lines', () => {
    assert.equal(findNativeFaults('native/core/a.cc', '\n'.repeat(500)).length, 0);
    assert.equal(findNativeFaults('native/core/a.cc', '\n'.repeat(501)).length, 1);
  });
});
