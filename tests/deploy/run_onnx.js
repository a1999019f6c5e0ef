// Runs ONNX files with ONNX Runtime: node run_onnx.js <folder of onnxruntime-node> <cases.json>
// cases.json: [{model, input, shape, output}, …], input and output being raw float32. Prints "done" after the last;
// a case that fails writes its reason to <output>.error and the next one goes on.
'use strict';
const fs = require('fs');
const [runtime, list] = process.argv.slice(2);
const ort = require(runtime);

async function run(session, { input, shape, output }) {
  const bytes = fs.readFileSync(input);
  const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const { logits } = await session.run({ images: new ort.Tensor('float32', pixels, shape) });
  fs.writeFileSync(output, Buffer.from(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength));
}

(async () => {
  const options = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 };
  let path, session;
  for (const one of JSON.parse(fs.readFileSync(list))) {
    try {
      if (one.model !== path) session = await ort.InferenceSession.create((path = one.model), options);
      await run(session, one);
    } catch (error) {
      fs.writeFileSync(one.output + '.error', String(error));
    }
  }
  console.log('done');
})();
