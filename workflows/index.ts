export { trainStyle } from './train-style.ts';
export { tellRefusal } from './tell-refusal.ts';
