// node late.js URL MILLISECONDS: gets a URL and begins to read the body so much later. Prints the status and how
// many bytes came, and how it ended if not in order.
const [url, wait] = process.argv.slice(2);
require("node:http").get(url, { agent: false }, (response) => {
  let bytes = 0;
  const done = (how) => console.log(`${response.statusCode} ${bytes}${how}`);
  response.on("error", (error) => done(` ${error.code}`));
  response.on("end", () => done(""));
  setTimeout(() => response.on("data", (data) => { bytes += data.length; }), Number(wait));
}).on("error", (error) => console.log(error.code));
