import { send, unread } from "file:///workspace/peers/mail/proxy/sdk/mail.ts";

const failure = (call: Promise<unknown>) => call.then(() => "no error", (error) => `${error.name}: ${error.message}`);

result.set({
  hasToken: Deno.env.has("MAIL_TOKEN"),
  unread: await unread("inbox"),
  thrown: await failure(unread("archive")),
  refused: await failure(send("not an address", "Hello")),
});
