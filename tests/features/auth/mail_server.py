"""A mail server of the plainest kind: it takes mails over SMTP and keeps them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class MailServer:
    """`refusals`: so many mails are refused before one is taken."""

    port: int = 0
    refusals: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            command = line.strip().upper()
            if command.startswith((b"EHLO", b"HELO")):
                writer.write(b"250-test\r\n250 SMTPUTF8\r\n")
            elif command == b"DATA":
                writer.write(b"354 go on\r\n")
                await self._take(await reader.readuntil(b"\r\n.\r\n"), writer)
            elif command == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                if command.startswith(b"RCPT TO:"):
                    self.recipients.append(line.decode().strip()[9:-1])
                writer.write(b"250 fine\r\n")
            await writer.drain()
        writer.close()

    async def _take(self, content: bytes, writer: asyncio.StreamWriter) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            writer.write(b"451 not now\r\n")
        else:
            self.mails.append(message_from_bytes(content[:-3], policy=policy.default))
            writer.write(b"250 taken\r\n")


@asynccontextmanager
async def running_mail_server() -> AsyncIterator[MailServer]:
    mail_server = MailServer()
    server = await asyncio.start_server(mail_server.serve, "127.0.0.1", 0)
    async with server:
        mail_server.port = server.sockets[0].getsockname()[1]
        yield mail_server
