// A process that ends before it can look at any picture, as one whose libraries can't be loaded does.
process.exit(1);
