export { trainStyle } from './train-style.ts';
