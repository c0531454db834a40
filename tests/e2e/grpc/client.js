// A client of grpc-js with the printed channel arguments: client.js ARGUMENTS HOST PORT.
const grpc = require("@grpc/grpc-js");
const [, , options, host, port] = process.argv;
const client = new grpc.Client(`${host}:${port}`, grpc.credentials.createInsecure(), JSON.parse(require("fs").readFileSync(options)).client);
const bytes = (message) => message;
client.makeUnaryRequest("/lab/Echo", bytes, bytes, Buffer.from("hello"), (error) => console.log(error ?? "answered"));
setTimeout(() => {}, 3600000);
