// ONNX Runtime on one thread, for bench_inference. Lines on standard input: "load ID PATH BATCH CHANNELS SIZE",
// "identity ID", "run ID COUNT"; each is answered by one line: "ok", nanoseconds of every run, or "error …".
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));
const ort = require('onnxruntime-node');
const options = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all', logSeverityLevel: 3 };

// One node that hands on one number, in ONNX's protobuf: its time is what the binding itself costs.
const field = (number, bytes) => [(number << 3) | 2, bytes.length, ...bytes];
const text = (number, value) => field(number, [...Buffer.from(value)]);
const int = (number, value) => [number << 3, value];
const value = (name) => [...text(1, name), ...field(2, field(1, [...int(1, 1), ...field(2, field(1, int(1, 1)))]))];
const graph = [...field(1, [...text(1, 'x'), ...text(2, 'y'), ...text(4, 'Identity')]), ...text(2, 'identity'), ...field(11, value('x')), ...field(12, value('y'))];
const identity = Uint8Array.from([...int(1, 8), ...field(7, graph), ...field(8, int(2, 13))]);

const models = new Map();
const load = async (id, model, shape) => {
  const session = await ort.InferenceSession.create(model, options);
  const count = shape.reduce((a, b) => a * b, 1);
  const images = new Float32Array(count).map((_, i) => Math.sin(i));
  models.set(id, { session, feeds: { [session.inputNames[0]]: new ort.Tensor('float32', images, shape) } });
  return 'ok';
};

const answer = async (words) => {
  const [what, id, ...rest] = words;
  if (what === 'load') return load(id, rest[0], [Number(rest[1]), Number(rest[2]), Number(rest[3]), Number(rest[3])]);
  if (what === 'identity') return load(id, identity, [1]);
  const { session, feeds } = models.get(id);
  const times = [];
  for (let i = 0; i < Number(rest[0]); ++i) {
    const start = process.hrtime.bigint();
    await session.run(feeds);
    times.push(process.hrtime.bigint() - start);
  }
  return times.join(' ');
};

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(await answer(line.trim().split(' ')));
  } catch (error) {
    console.log(`error ${String(error.message ?? error).split('\n')[0]}`);
  }
}
