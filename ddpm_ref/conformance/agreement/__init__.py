"""What an exact implementation of the whole interface says, and where another one has to agree with it."""

import ddpm_ref.conformance.lawbook  # noqa: F401  # first: the laws hold cases from here, and the truth of these cases is theirs
