// @ts-check
import { defineConfig, globalIgnores } from 'eslint/config';
import { createNodeResolver, importX } from 'eslint-plugin-import-x';
import jsdoc from 'eslint-plugin-jsdoc';
import tseslint from 'typescript-eslint';

/** Modules of common/ that run in the workflow sandbox as well: no Node built-in, no environment, no package but Temporal's. */
const SANDBOX_SAFE_COMMON = [
  'activity-types',
  'errors',
  'job-request',
  'nearest',
  'pictures-queue',
  'search-attributes',
  'training-config',
  'types',
  'validation',
];

const environmentBan = {
  object: 'process',
  property: 'env',
  message: 'The environment is read in common/config.ts only: take the value from the configuration instead.',
};

const sandboxPackages = {
  regex: '^(?!\\.)(?!@temporalio/(workflow|common)$)',
  message: 'Workflow code runs in a sandbox: only @temporalio/workflow and @temporalio/common exist there.',
};

/** @type {import('eslint').Linter.RulesRecord} */
const sandboxRules = {
  'no-restricted-globals': [
    'error',
    ...['process', 'Buffer', 'require', 'fetch', 'performance', 'setImmediate'].map((name) => ({
      name,
      message: 'Not available or not deterministic in the workflow sandbox.',
    })),
  ],
  'no-restricted-syntax': [
    'error',
    { selector: 'ImportExpression', message: 'Dynamic imports do not work in the workflow sandbox.' },
  ],
};

export default defineConfig(
  globalIgnores(['node_modules/', 'build/', '.brushwork/']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts', '**/*.mjs'],
    extends: [tseslint.configs.recommendedTypeChecked],
    plugins: { 'import-x': importX, jsdoc },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    settings: {
      'import-x/extensions': ['.ts', '.mjs'],
      'import-x/parsers': { '@typescript-eslint/parser': ['.ts', '.mjs'] },
      'import-x/resolver-next': [createNodeResolver({ extensions: ['.ts', '.mjs', '.js'] })],
    },
    rules: {
      eqeqeq: ['error', 'always'],
      'max-lines': ['error', { max: 300, skipBlankLines: true, skipComments: true }],
      'no-restricted-properties': ['error', environmentBan],
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      'import-x/no-self-import': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', caughtErrors: 'none' }],
      '@typescript-eslint/require-await': 'off',
      'jsdoc/require-jsdoc': [
        'error',
        {
          publicOnly: true,
          require: { ClassDeclaration: true, FunctionDeclaration: true },
          contexts: [
            'ExportNamedDeclaration > VariableDeclaration',
            'TSInterfaceDeclaration',
            'TSTypeAliasDeclaration',
          ],
          enableFixer: false,
        },
      ],
    },
  },
  { files: ['**/*.mjs'], rules: { '@typescript-eslint/explicit-module-boundary-types': 'off' } },
  {
    files: ['common/config.ts', 'scripts/**', 'test/**'],
    rules: { 'no-restricted-properties': 'off' },
  },
  {
    files: ['test/**'],
    rules: {
      'max-lines': 'off',
      'jsdoc/require-jsdoc': 'off',
      '@typescript-eslint/explicit-module-boundary-types': 'off',
    },
  },
  {
    files: ['workflows/**/*.ts'],
    rules: {
      ...sandboxRules,
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          patterns: [
            { ...sandboxPackages, allowTypeImports: true },
            {
              regex: '^\\..*/(native|bridge|activities|worker|cli|scripts|test)(/|$)',
              allowTypeImports: true,
              message: 'Workflow code may import only types from the parts that run outside the sandbox.',
            },
            {
              regex: `(^|/)common/(?!(${SANDBOX_SAFE_COMMON.join('|')})\\.ts$)`,
              allowTypeImports: true,
              message: `Of common/, workflow code may import values only from: ${SANDBOX_SAFE_COMMON.join(', ')}.`,
            },
          ],
        },
      ],
    },
  },
  {
    files: SANDBOX_SAFE_COMMON.map((name) => `common/${name}.ts`),
    rules: {
      ...sandboxRules,
      '@typescript-eslint/no-restricted-imports': [
        'error',
        { patterns: [{ ...sandboxPackages, allowTypeImports: true }] },
      ],
    },
  },
);
