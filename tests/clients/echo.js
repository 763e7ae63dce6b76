// echo.js HOST PORT BYTES: sends bytes, half-closes, and says whether they all come back.

const net = require("node:net");
const crypto = require("node:crypto");

const [host, port, length] = process.argv.slice(2);
const sent = crypto.randomBytes(Number(length));
const received = [];
let peer;

const socket = net.connect({ host, port: Number(port), allowHalfOpen: true }, () => {
  peer = socket.remoteAddress;
  socket.end(sent);
});
socket.on("data", (part) => received.push(part));
socket.on("end", () => {
  console.log(Buffer.concat(received).equals(sent) ? "equal" : "different", peer);
});
socket.on("error", (error) => console.log("refused", error.code));
