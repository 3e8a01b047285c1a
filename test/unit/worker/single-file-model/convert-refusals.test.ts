import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { ModelLoadFailedError } from '../../../../common/errors.ts';
import { writeSafetensors } from '../../../support/single-file.ts';
import { ConversionScene, NORM, UNET, numbers } from './support/conversion.ts';

describe('convertSingleFile refuses', () => {
  let scene: ConversionScene;

  beforeEach(() => {
    scene = new ConversionScene();
  });
  afterEach(() => scene.remove());

  const refuses = async (words: RegExp) => {
    await assert.rejects(scene.convert(), (error) => {
      assert.ok(error instanceof ModelLoadFailedError, String(error));
      assert.match(error.message, words);
      assert.ok(!error.message.includes('\n'));
      return true;
    });
    assert.deepEqual(existsSync(scene.at('cache/models')) ? scene.models() : [], []);
  };

  it('a file whose weights are not all there, naming some', async () => {
    delete scene.tensors[NORM];
    for (const name of Object.keys(scene.tensors))
      if (name.startsWith(`${UNET}.middle_block.0.`)) delete scene.tensors[name];
    writeSafetensors(scene.file, scene.tensors);
    await refuses(
      /^The base model style lacks model\.diffusion_model\.middle_block\.0\.in_layers\.0\.weight, .* and 7 more\. It is damaged or of another architecture/,
    );
  });

  it('a file with weights that the architecture does not have', async () => {
    writeSafetensors(scene.file, { [`${UNET}.output_blocks.3.3.conv.weight`]: numbers('F16', 1), ...scene.tensors });
    await refuses(
      /holds what Stable Diffusion 1\.x does not have: model\.diffusion_model\.output_blocks\.3\.3\.conv\.weight\./,
    );
  });

  it('weights of another shape or of a type that is not trained on', async () => {
    scene.tensors[NORM] = numbers('F16', 31);
    writeSafetensors(scene.file, scene.tensors);
    await refuses(/type or shape that does not fit: model\.diffusion_model\.out\.0\.weight \(F16 31 instead of 32\)/);
    scene.tensors[NORM] = numbers('F8_E4M3', 32);
    writeSafetensors(scene.file, scene.tensors);
    await refuses(/out\.0\.weight \(F8_E4M3 32 instead of 32\)/);
  });

  it('sizes whose heads and groups nobody can know', async () => {
    for (const name of ['unet', 'vae', 'text_encoder']) rmSync(scene.at('folder', name), { recursive: true });
    await refuses(
      /other sizes than Stable Diffusion 1\.x, .*its vae has widths of 8, 16, 16, which are not 32 groups.*: put its unet\/config\.json, .* beside the file/,
    );
  });

  it('a configuration beside it that is of another model', async () => {
    scene.writeSide('unet/config.json', { block_out_channels: [320, 640] });
    await refuses(
      /unet\/config\.json beside the base model style says block_out_channels \[320,640\], but its weights have \[32,64\]/,
    );
    writeFileSync(scene.at('folder/unet/config.json'), '{');
    await refuses(/unet\/config\.json is not valid JSON/);
  });

  it('a vocabulary that is not that of CLIP, where there is no tokenizer', async () => {
    rmSync(scene.at('folder/tokenizer/merges.txt'));
    await refuses(
      /knows 1024 tokens, CLIP's tokenizer 49408: put the model's tokenizer\/vocab\.json and .* beside the file/,
    );
  });

  it('a file that was cut off, and one that is damaged', async () => {
    const whole = readFileSync(scene.file);
    truncateSync(scene.file, whole.length - 100);
    await refuses(
      new RegExp(`was cut off: it has ${whole.length - 100} bytes and needs ${whole.length}\\. Get it again`),
    );
    truncateSync(scene.file, 1000);
    await refuses(/was cut off: it has 1000 bytes/);
    truncateSync(scene.file, 5);
    await refuses(/is no safetensors file/);
    whole.writeUInt8(0x2b, 8);
    writeFileSync(scene.file, whole);
    await refuses(/is no safetensors file, or a damaged one/);
    const { bytes, ...entry } = numbers('F16', 4);
    writeSafetensors(scene.file, { ...scene.tensors, [NORM]: { ...entry, bytes: bytes.subarray(0, 6) } });
    await refuses(/gives 6 bytes to "model\.diffusion_model\.out\.0\.weight", but its shape needs 8/);
  });

  it('what only bears the name of a safetensors file', async () => {
    for (const [content, words] of [
      [
        Buffer.from('PK\x03\x04 and then some bytes of a zip archive'),
        /PyTorch pickle under another name: .*may run any code/,
      ],
      [Buffer.from([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]), /PyTorch pickle under another name/],
      [Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /pointer of Git LFS/],
      [Buffer.from('<!DOCTYPE html><html>Log in</html>'), /is a web page/],
      [Buffer.alloc(200, 0xff), /is no safetensors file/],
    ] as const) {
      writeFileSync(scene.file, content);
      await refuses(words);
    }
  });

  it('a file that somebody writes to meanwhile', async () => {
    const onProgress = () => appendFileSync(scene.file, ' ');
    await assert.rejects(scene.convert({ onProgress }), /changed while it was read: start again/);
    assert.deepEqual(scene.models(), []);
  });
});
