import assert from 'node:assert/strict';
import { parseDemoOptions } from '../../../scripts/demo/options.ts';

describe('options of the demo', () => {
  it('trains the small model for a minute or two by default', () => {
    assert.deepEqual(parseDemoOptions([]), { model: null, epochs: 20, exit: false, verbose: false });
  });

  it('trains a real model for longer', () => {
    assert.equal(parseDemoOptions(['--model', 'org/name'])?.epochs, 100);
    assert.equal(parseDemoOptions(['--model', 'org/name', '--epochs', '7'])?.epochs, 7);
  });

  for (const epochs of ['0', '1001', '2.5', 'many', '']) {
    it(`refuses ${JSON.stringify(epochs)} epochs`, () => {
      assert.throws(() => parseDemoOptions([`--epochs=${epochs}`]), /--epochs must be a whole number from 1 to 1000/);
    });
  }

  it('refuses an option that it does not know', () => {
    assert.throws(() => parseDemoOptions(['--epoch', '3']), /There is no option --epoch; did you mean --epochs\?/);
  });

  it('refuses in words what makes no sense', () => {
    assert.throws(() => parseDemoOptions(['--epochs', '-3']), /--epochs must be a whole number .*, but is "-3"/);
    assert.throws(() => parseDemoOptions(['--model', '']), /--model is empty/);
  });

  it('has help', () => {
    assert.equal(parseDemoOptions(['--help']), null);
    assert.equal(parseDemoOptions(['-h']), null);
  });
});
