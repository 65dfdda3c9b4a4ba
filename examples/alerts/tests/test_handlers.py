import json
import smtplib

import pytest

from alerts.handlers import EmailHandler, Handler, HandlerError, WebhookHandler


class FakeSmtp:
    def __init__(self, fail=None):
        self.mails = []
        self.fail = fail

    def __call__(self, host, port):
        self.address = (host, port)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def send_message(self, mail):
        if self.fail is not None:
            raise self.fail
        self.mails.append(mail)


def email(smtp):
    return EmailHandler("mail.test", "a@example.org", ["b@example.org", "c@example.org"], connect=smtp)


def test_a_handler_without_send_says_so(make_alert):
    with pytest.raises(NotImplementedError, match="Handler has no send"):
        Handler().send(make_alert())


def test_a_handler_wants_its_least_severity_and_worse(make_alert):
    handler = Handler(least="warning")
    assert not handler.wants(make_alert(severity="info"))
    assert handler.wants(make_alert(severity="warning"))
    assert handler.wants(make_alert(severity="critical"))


def test_mail_goes_to_all_recipients(make_alert):
    smtp = FakeSmtp()
    email(smtp).send(make_alert())
    (mail,) = smtp.mails
    assert mail["To"] == "b@example.org, c@example.org"
    assert mail["Subject"].startswith("[WARNING]")
    assert smtp.address == ("mail.test", 25)


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), smtplib.SMTPDataError(550, b"no")])
def test_a_mail_that_fails_names_the_server(make_alert, error):
    with pytest.raises(HandlerError, match="mail.test:25"):
        email(FakeSmtp(fail=error)).send(make_alert())


def test_the_webhook_posts_json(make_alert):
    posted = []
    handler = WebhookHandler("https://hook.test/x", post=lambda *args: posted.append(args) or 200)
    handler.send(make_alert())
    ((url, data, timeout),) = posted
    assert (url, timeout) == ("https://hook.test/x", 5.0)
    assert json.loads(data)["alert"]["severity"] == "warning"


def test_a_refusal_is_an_error(make_alert):
    with pytest.raises(HandlerError, match="answered 403"):
        WebhookHandler("https://hook.test/x", post=lambda *_: 403).send(make_alert())


def test_nobody_there_is_an_error_that_names_the_url(make_alert):
    def post(*_):
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(HandlerError, match="https://hook.test/x"):
        WebhookHandler("https://hook.test/x", post=post, retries=0).send(make_alert())
