"""What may go wrong with a document, beyond what may go wrong anywhere."""

from app.core.errors import CargoFlowError
from app.features.scans.limits import DOCUMENTS_MAX


class TooManyDocumentsError(CargoFlowError):
    """The application has as many documents as one may have."""

    status, code, title = 422, "document_limit", "Too many documents"

    def __init__(self) -> None:
        """Say how many that is."""
        super().__init__(f"An application may have {DOCUMENTS_MAX} documents. Nothing was stored.")


class SlowUploadError(CargoFlowError):
    """The file did not arrive in the time that a request gets."""

    status, code, title = 408, "request_timeout", "Request timeout"

    def __init__(self) -> None:
        """Ask for the file again."""
        super().__init__("The file did not arrive in time. Nothing was stored; send it again.")
