// BullMQ's side of bench.jobs: node bullmq.js ROLE N OUT URL; the same no-op, count and sum as peers.py.
const fs = require("fs");
const readline = require("readline");
const { Queue, Worker } = require("bullmq");
const [role, n, out, url] = [process.argv[2], Number(process.argv[3]), process.argv[4], new URL(process.argv[5])];
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const text = "x".repeat(100);
const write = (result) => { fs.writeFileSync(out + ".part", JSON.stringify(result)); fs.renameSync(out + ".part", out); };
const now = () => Number(process.hrtime.bigint()) / 1e9;
const epoch = () => performance.timeOrigin / 1000 + performance.now() / 1000;

async function main() {
  if (role === "work") {
    let count = 0, total = 0, first = 0;
    const lags = [];
    const options = { connection, concurrency: 100, removeOnComplete: { count: 0 } };
    new Worker("bench", async (job) => {
      const at = epoch();
      if (count === 0) first = now();
      count += 1; total += job.data.n;
      if (job.data.text[0] === "@") lags.push(at - Number(job.data.text.slice(1, 21)));
      if (count === n) write({ count, total, seconds: now() - first, lags, ended: epoch() });
    }, options);
    return;
  }
  const queue = new Queue("bench", { connection });
  const add = (i, s) => queue.add("noop", { n: i, text: s });
  // What peers.py calls commands: one N, many N, pace N or fill N, a line each.
  const answer = (result) => process.stdout.write("RESULT " + JSON.stringify(result) + "\n");
  await queue.waitUntilReady();
  answer({});
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [what, count] = [line.split(" ")[0], Number(line.split(" ")[1])];
    const begin = now();
    if (what === "pace") {
      for (let i = 0; i < count; i++) {
        await new Promise((done) => setTimeout(done, Math.max(0, (begin + i / 50 - now()) * 1000)));
        await add(i, ("@" + epoch().toFixed(7).padEnd(20)).padEnd(100, "x"));
      }
    } else if (what === "one") {
      for (let i = 0; i < count; i++) await add(i, text);
    } else {
      let next = 0;
      await Promise.all(Array.from({ length: 32 }, async () => { while (next < count) await add(next++, text); }));
    }
    answer({ rate: count / (now() - begin) });
  }
  await queue.close();
}
main();
