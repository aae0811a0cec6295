// A small mail SDK. Its token is a secret of this VM; who calls the SDK from another VM never has it.
const token = Deno.env.get("MAIL_TOKEN");

const mailboxes: Record<string, { from: string; subject: string }[]> = {
  inbox: [
    { from: "ada@example.org", subject: "The engine works" },
    { from: "grace@example.org", subject: "Found a moth" },
  ],
};

export function unread(mailbox: string) {
  const mails = mailboxes[mailbox];
  // A careless message, as SDKs have them.
  if (!mails) throw new Error(`401 from the mail server: no mailbox ${mailbox} for Bearer ${token}`);
  return mails;
}

export function send(to: string, subject: string) {
  return { accepted: true, id: `${to.length}-${subject.length}` };
}
