// What the core with JSON costs a page: minified, compressed with gzip. Fails above 6 KB.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const LIMIT = 6_000;

/** Bytes of a module and all it imports, minified, and those compressed. */
async function size(entry) {
  const result = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  const [file] = result.outputFiles;
  return { minified: file.contents.length, gzip: gzipSync(file.contents, { level: 9 }).length };
}

const core = await size("src/index.ts");
for (const name of ["index", "msgpack", "proto"]) {
  const { minified, gzip } = await size(`src/${name}.ts`);
  console.log(`${name.padEnd(8)} ${minified} bytes minified, ${gzip} with gzip`);
}
if (core.gzip > LIMIT) {
  console.error(
    `error: the core has ${core.gzip} bytes, more than ${LIMIT}: make it smaller, or move a part to an import of its own`,
  );
  process.exitCode = 1;
}
