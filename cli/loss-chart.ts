import sharp from 'sharp';
import { strokeText } from '../common/stroke-font.ts';
import type { ValidationLoss } from '../common/types.ts';
import { writeAtomically } from '../common/write-atomically.ts';

/** Measured losses of a run, from its start on. */
export interface LossCurve {
  /** Mean loss of each epoch. */
  epochLosses: readonly number[];
  /** Loss of each micro-step, drawn thinly behind the means; may be empty. */
  stepLosses: readonly number[];
  /** What was measured on held-out pictures; default: nothing. */
  validationLosses?: readonly ValidationLoss[];
}

const WIDTH_PX = 960;
const HEIGHT_PX = 540;
const PLOT = { left: 90, right: WIDTH_PX - 30, top: 60, bottom: HEIGHT_PX - 70 };
const COLORS = { ink: '#33373d', grid: '#e3e6ea', step: '#b9cbe4', mean: '#1f5fae', validation: '#c2571a' };

/** More points than this do not fit on the picture: neighbours are averaged. */
const MAX_POINT_COUNT = 1200;

interface Axis {
  min: number;
  max: number;
  ticks: number[];
  decimals: number;
}

/**
 * Draws a loss curve: the mean of each epoch over the epoch, each step thinly behind it. Needs no font.
 *
 * @param curve - at least one finite value
 * @returns an SVG document of 960 × 540 px
 */
export function lossChartSvg(curve: LossCurve): string {
  const steps = averaged(curve.stepLosses);
  const { validationLosses = [] } = curve;
  const finite = [...curve.epochLosses, ...steps, ...validationLosses.map(({ loss }) => loss)].filter(Number.isFinite);
  const y = axisOf(Math.min(...finite), Math.max(...finite), 6);
  const x = axisOf(0, Math.max(1, curve.epochLosses.length), 10, 1);
  x.max = Math.max(1, curve.epochLosses.length);
  const xPx = (value: number): number => PLOT.left + ((value - x.min) / (x.max - x.min)) * (PLOT.right - PLOT.left);
  const yPx = (value: number): number => PLOT.bottom - ((value - y.min) / (y.max - y.min)) * (PLOT.bottom - PLOT.top);
  const evenly = (values: readonly number[]): ValidationLoss[] =>
    values.map((loss, i) => ({ epoch: ((i + 1) / values.length) * x.max, loss }));
  const points = (values: readonly ValidationLoss[]): string =>
    values
      .filter(({ loss }) => Number.isFinite(loss))
      .map(({ epoch, loss }) => `${xPx(epoch).toFixed(1)},${yPx(loss).toFixed(1)}`)
      .join(' ');
  const line = (values: readonly ValidationLoss[], color: string, width: number): string =>
    `<polyline points="${points(values)}" fill="none" stroke="${color}" stroke-width="${width}" stroke-linejoin="round" stroke-linecap="round"/>`;
  const label = { heightPx: 12, color: COLORS.ink };
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH_PX}" height="${HEIGHT_PX}">`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    ...y.ticks.map((tick) => gridLine(PLOT.left, yPx(tick), PLOT.right, yPx(tick))),
    ...y.ticks.map((tick) =>
      strokeText(tick.toFixed(y.decimals), { ...label, x: PLOT.left - 10, y: yPx(tick) + 5, anchor: 'end' }),
    ),
    ...x.ticks.map((tick) => gridLine(xPx(tick), PLOT.top, xPx(tick), PLOT.bottom)),
    ...x.ticks.map((tick) =>
      strokeText(tick.toFixed(x.decimals), { ...label, x: xPx(tick), y: PLOT.bottom + 24, anchor: 'middle' }),
    ),
    line(evenly(steps), COLORS.step, 1),
    line(evenly(curve.epochLosses), COLORS.mean, 2.5),
    ...(validationLosses.length === 0 ? [] : [line(validationLosses, COLORS.validation, 2.5)]),
    ...(curve.epochLosses.length === 1
      ? [`<circle cx="${xPx(1)}" cy="${yPx(curve.epochLosses[0] ?? 0)}" r="4" fill="${COLORS.mean}"/>`]
      : []),
    strokeText('epoch', {
      ...label,
      heightPx: 14,
      x: (PLOT.left + PLOT.right) / 2,
      y: HEIGHT_PX - 18,
      anchor: 'middle',
    }),
    strokeText('loss', {
      ...label,
      heightPx: 14,
      x: 30,
      y: (PLOT.top + PLOT.bottom) / 2,
      anchor: 'middle',
      rotation: -90,
    }),
    ...legend(curve),
    '</svg>',
  ].join('\n');
}

/**
 * Writes a loss curve as PNG, atomically.
 *
 * @param curve - at least one finite value
 * @param file - to write
 */
export async function writeLossChart(curve: LossCurve, file: string): Promise<void> {
  const png = await sharp(Buffer.from(lossChartSvg(curve)))
    .png()
    .toBuffer();
  await writeAtomically(file, png);
}

function legend(curve: LossCurve): string[] {
  const entries: [string, string, number][] = [['mean per epoch', COLORS.mean, 2.5]];
  if (curve.stepLosses.length > 0) entries.push(['each step', COLORS.step, 1.5]);
  if ((curve.validationLosses ?? []).length > 0) entries.push(['validation', COLORS.validation, 2.5]);
  return entries.flatMap(([text, color, width], i) => {
    const left = PLOT.left + i * 220;
    return [
      `<path d="M${left} 30h36" stroke="${color}" stroke-width="${width}"/>`,
      strokeText(text, { x: left + 46, y: 36, heightPx: 12, color: COLORS.ink }),
    ];
  });
}

function gridLine(x1: number, y1: number, x2: number, y2: number): string {
  return `<path d="M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}" stroke="${COLORS.grid}"/>`;
}

/** Means of equal groups of neighbours, few enough to draw. */
function averaged(values: readonly number[]): number[] {
  const groupSize = Math.ceil(values.length / MAX_POINT_COUNT);
  if (groupSize <= 1) return [...values];
  return Array.from({ length: Math.ceil(values.length / groupSize) }, (_, i) => {
    const group = values.slice(i * groupSize, (i + 1) * groupSize);
    return group.reduce((sum, value) => sum + value, 0) / group.length;
  });
}

/** A range of round numbers (1, 2 or 5 times a power of ten apart) that holds all values. */
function axisOf(smallest: number, largest: number, tickCount: number, minStep = 0): Axis {
  const span = largest - smallest || Math.abs(largest) || 1;
  const rough = Math.max(minStep, span / tickCount);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? rough;
  const min = Math.floor(smallest / step) * step;
  const max = Math.max(Math.ceil(largest / step), Math.floor(smallest / step) + 1) * step;
  const ticks = Array.from({ length: Math.round((max - min) / step) + 1 }, (_, i) => min + i * step);
  return { min, max, ticks, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
