//! Whom workers are to the hub.

use crate::api::HubSpec;

/// Default of `hub.rotateDays`.
pub const ROTATE_DAYS: u32 = 30;

/// Days that a user lives which the operator makes; `None` where workers are the secret's own.
#[must_use]
pub(crate) fn rotate_days(hub: &HubSpec) -> Option<u32> {
    hub.is_minted().then(|| hub.rotate_days.unwrap_or(ROTATE_DAYS))
}
