"""Shared by the clients for Google's services: the user's account, retries, and errors.

The retries of Google's libraries are switched off, because they continue for two minutes if nothing
responds. Here a request gets a few attempts with timeouts, and a stop event ends the pauses.
"""

from __future__ import annotations

import http.client
import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net.retry import HttpFailureError, with_retries

with warnings.catch_warnings():
    # Google's libraries emit a FutureWarning on older versions of Python.
    warnings.simplefilter("ignore", FutureWarning)
    import google.auth
    import google.auth.credentials
    import google.auth.transport.requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import (
        DefaultCredentialsError,
        GoogleAuthError,
        TransportError,
    )
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from oiyolo.core.errors import OiyoloError
    from oiyolo.net.retry import RetryPolicy

    ErrorText = tuple[type[OiyoloError], str, str]
    """The class of an error for the user, what failed, and the remedy."""

STORAGE_EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
NOT_FOUND: Final = "HTTP 404"
WRONG_CHECKSUM: Final = "wrong checksum"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_CONNECTION_ERRORS: Final = (TransportError, ConnectionError, TimeoutError)
_LOWER_LAYERS: Final = ("requests.", "urllib3.", "http.")
"""Google's libraries pass on some exceptions of the packages that they are built on."""
_REQUEST_PREFIX: Final = re.compile(r"^[A-Z]+ https?://\S+ ")
"""The messages of Google's libraries begin with the request."""
_UNINFORMATIVE_MESSAGES: Final = ("unknown error", "('Request failed")

auth: Any = google.auth
"""Only partly typed, and differently in each version."""

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """The account that sends the requests.

    Attributes:
        credentials: Credentials, as Google's libraries take them.
        project: Google Cloud project of the credentials; empty if they name none.
        is_anonymous: Whether there are no credentials.
    """

    credentials: Any
    project: str
    is_anonymous: bool


def identity() -> Identity:
    """Return the user's credentials; anonymous ones if there are none.

    Raises:
        UsageError: There are credentials, but they cannot be used.
    """
    project_variable = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    anonymous = Identity(
        auth.credentials.AnonymousCredentials(), project_variable, is_anonymous=True
    )
    if os.environ.get(STORAGE_EMULATOR_VARIABLE):
        return anonymous
    try:
        with warnings.catch_warnings():
            # The library recommends a quota project, which only some of Google's services require.
            warnings.simplefilter("ignore", UserWarning)
            credentials, project = auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UsageError(
                "the credentials that GOOGLE_APPLICATION_CREDENTIALS names cannot be used",
                found=_message(error),
                remedy="Correct the variable, or unset it and log in with "
                "`gcloud auth application-default login`",
            ) from None
        return anonymous
    except GoogleAuthError as error:
        raise UsageError("the Google credentials cannot be used", found=_message(error)) from None
    return Identity(credentials, project or project_variable, is_anonymous=False)


def call(request: Callable[[int], T], *, policy: RetryPolicy, stop: threading.Event) -> T:
    """Return what ``request`` returns, as ``with_retries`` does.

    Args:
        request: Function for one attempt, which may raise any error of Google's libraries; its
            argument is the attempt's number, from 1.
        policy: Number of attempts, and the pauses between them.
        stop: Event that ends the attempts.

    Raises:
        HttpFailureError: The last failure, or the first permanent one.
        UnavailableError: Google rejects the credentials.
        StoppedError: The stop event was set.
    """

    def attempt(number: int) -> T:
        try:
            return request(number)
        except Exception as error:
            if (failure := _failure(error)) is None:
                raise
            raise failure from error

    return with_retries(attempt, policy=policy, stop=stop)


def user_error(
    failure: HttpFailureError, what: str, *, where: str, known: Mapping[str, ErrorText]
) -> OiyoloError:
    """Return the error that says what the user can do.

    Args:
        failure: Failure of a request.
        what: What failed, for failures that are not ``known``.
        where: The bucket or the project.
        known: Errors for certain reasons, such as "HTTP 404".
    """
    remedy = "Check the network, then run the same command again"
    kind, what, remedy = known.get(failure.reason, (UnavailableError, what, remedy))
    return kind(what, where=where, found=failure.detail, remedy=remedy)


def _failure(error: Exception) -> HttpFailureError | None:
    """Return the failure that an exception stands for; ``None`` for any other exception."""
    if isinstance(error, DataCorruption):
        detail = "the content does not match its checksum"
        return HttpFailureError(WRONG_CHECKSUM, detail, transient=True)
    if isinstance(error, (GoogleAPICallError, InvalidResponse)):
        return _status_failure(error)
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        raise UnavailableError(
            "Google rejects the credentials",
            found=_message(error),
            remedy="Log in again: `gcloud auth application-default login`",
        ) from error
    if isinstance(error, _CONNECTION_ERRORS) or type(error).__module__.startswith(_LOWER_LAYERS):
        return HttpFailureError("connection failed", _message(error), transient=True, reached=False)
    return None


def _status_failure(error: Any) -> HttpFailureError:  # noqa: ANN401  (two types, same attributes)
    response = getattr(error, "response", None)
    status = int(getattr(error, "code", 0) or getattr(response, "status_code", 0))
    phrase = http.client.responses.get(status, "")
    message = _REQUEST_PREFIX.sub("", _message(error))
    return HttpFailureError.of_status(
        status,
        phrase if message.startswith(_UNINFORMATIVE_MESSAGES) else f"{phrase}: {message}",
        getattr(response, "headers", {}).get("Retry-After", ""),
    )


def _message(error: BaseException) -> str:
    """Return an error's message on one line."""
    message = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    return " ".join(message.split())
