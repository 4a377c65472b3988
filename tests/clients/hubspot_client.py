"""HubSpot's own Python client against the sandbox: it must understand every answer.

Usage: hubspot_client.py BASE_URL. The sandbox accepts the token `pat-na1-test` only, and its
results are there at once.
"""

import datetime
import json
import sys
import urllib.parse

from hubspot import HubSpot
from hubspot.marketing import transactional
from hubspot.marketing.transactional import exceptions

BASE = sys.argv[1]


def client(token="pat-na1-test"):
    # `host` is read by the typed calls, `base_url` by `api_request`.
    return HubSpot(access_token=token, host=BASE, base_url=BASE)


def request(to, send_id):
    message = transactional.PublicSingleSendEmail(to=to, send_id=send_id)
    return transactional.PublicSingleSendRequestEgg(
        email_id=4126643121,
        message=message,
        contact_properties={"firstname": "Ada"},
        custom_properties={"order": "1042"},
    )


def send(to, send_id, token="pat-na1-test"):
    return client(token).marketing.transactional.single_send_api.send_email(request(to, send_id))


def get(path, token="pat-na1-test"):
    return client(token).api_request({"path": path})


def typed(text):
    """Reads a status with the client's own model, as no typed call for it exists (HubSpot's
    issue 357). The client knows 43 results and would refuse HubSpot's newer ones."""
    configuration = transactional.Configuration()
    configuration.client_side_validation = False
    api = transactional.ApiClient(configuration=configuration)
    response = type("Response", (), {"data": text})
    return api.deserialize(response, "EmailSendStatusView")


def look_up(status_id):
    answer = get("/marketing/v3/email/send-statuses/" + urllib.parse.quote(status_id, safe=""))
    assert answer.status_code == 200, answer.text
    return typed(answer.text)


def check_sends():
    view = send("ada@example.com", "py-1")
    assert view.status == "PENDING" and view.send_result is None, view
    assert isinstance(view.requested_at, datetime.datetime), view
    result = look_up(view.status_id)
    assert (result.status, result.send_result) == ("COMPLETE", "SENT"), result
    assert isinstance(result.completed_at, datetime.datetime), result
    assert isinstance(result.event_id.created, datetime.datetime), result

    again = send("ada@example.com", "py-1")
    assert again.status_id != view.status_id
    assert look_up(again.status_id).send_result == "IDEMPOTENT_IGNORE"


def check_marketing():
    """The client has no typed call for the marketing single send (issue 284)."""
    for path in ["/marketing/v4/email/single-send", "/marketing/email-campaigns/2026-03/single-send"]:
        body = {"emailId": 1, "message": {"to": "ada@example.com", "sendId": path}}
        answer = client().api_request({"method": "POST", "path": path, "body": body})
        assert answer.status_code == 200, answer.text
        assert look_up(typed(answer.text).status_id).send_result == "SENT"


def check_every_result():
    results = get("/_sandbox/faults").json()["results"]
    assert len(results) == 51, results
    for result in results:
        view = send(f"ada+{result}@example.com", f"py-{result}")
        told = look_up(view.status_id)
        assert told.send_result == result, told
        assert told.status in ("COMPLETE", "CANCELED"), told


def check_errors():
    for to, token, status, kind, category in [
        ("ada@example.com", "wrong", 401, exceptions.UnauthorizedException, "INVALID_AUTHENTICATION"),
        ("ada+http403@example.com", None, 403, exceptions.ForbiddenException, "MISSING_SCOPES"),
        ("ada+http400@example.com", None, 400, exceptions.ApiException, "VALIDATION_ERROR"),
        ("ada+http404@example.com", None, 404, exceptions.NotFoundException, None),
        ("ada+http429@example.com", None, 429, exceptions.ApiException, None),
        ("ada+daily@example.com", None, 429, exceptions.ApiException, None),
        ("ada+http477@example.com", None, 477, exceptions.ApiException, None),
        ("ada+http500@example.com", None, 500, exceptions.ServiceException, None),
        ("ada+http502@example.com", None, 502, exceptions.ServiceException, None),
        ("ada+http503@example.com", None, 503, exceptions.ServiceException, None),
        ("ada+http504@example.com", None, 504, exceptions.ServiceException, None),
    ]:
        try:
            send(to, f"py-{to}", token or "pat-na1-test")
        except exceptions.ApiException as error:
            assert type(error) is kind or kind is exceptions.ApiException, (to, type(error))
            assert error.status == status, (to, error)
            body = json.loads(error.body)
            assert body["status"] == "error" and body["message"], (to, body)
            assert body.get("category") == category, (to, body)
            assert body["correlationId"] == error.headers["x-hubspot-correlation-id"], (to, body)
            if status == 429:
                assert body["errorType"] == "RATE_LIMIT" and body["policyName"], (to, body)
        else:
            raise AssertionError(f"{to}: no error")
    try:
        send("ada+400-text@example.com", "py-text")
    except exceptions.ApiException as error:
        assert (error.status, error.body) == (400, "Invalid request"), error
    else:
        raise AssertionError("no error for plain text")


def check_account():
    details = get("/account-info/v3/details").json()
    assert isinstance(details["portalId"], int) and details["timeZone"] == "UTC", details
    usage = get("/account-info/v3/api-usage/daily/private-apps").json()
    assert usage["results"][0]["currentUsage"] > 0, usage
    info = client().api_request(
        {
            "method": "POST",
            "path": "/oauth/v2/private-apps/get/access-token-info",
            "body": {"tokenKey": "pat-na1-test"},
        }
    ).json()
    assert info["hubId"] == details["portalId"], info
    assert "transactional-email" in info["scopes"], info
    assert get("/account-info/v3/details", "wrong").status_code == 401


check_sends()
check_marketing()
check_every_result()
check_errors()
check_account()
print("understood")
