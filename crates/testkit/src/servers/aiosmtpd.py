"""A mail server that demands STARTTLS and a login, and says what it took as Python's own parser of mail reads it.

Arguments: port, certificate, key, password, file of answers (a JSON object a line)."""
import asyncio, email, email.policy, json, ssl, sys

from aiosmtpd.smtp import SMTP, AuthResult

port, certificate, key, password, answers = sys.argv[1:]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        part = lambda kind: (body := message.get_body((kind,))) and body.get_content()
        said = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": session.ssl is not None,
            "login": session.auth_data,
            "headers": {name: str(value) for name, value in message.items()},
            "plain": part("plain"),
            "html": part("html"),
            "attachments": len(list(message.iter_attachments())),
            "defects": [str(d) for d in message.defects],
        }
        with open(answers, "a") as file:
            file.write(json.dumps(said) + "\n")
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = data.password.decode() == password
    return AuthResult(success=good, handled=False, auth_data=data.login.decode())


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    make = lambda: SMTP(
        Handler(), tls_context=tls, require_starttls=True, auth_required=True, authenticator=authenticate
    )
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", int(port))
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
