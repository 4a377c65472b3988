//! HubSpot's weather: what goes wrong there, for whichever request comes along.

use std::time::Duration;

/// What may strike any call or any mail.
const SHARES: [(&str, f64); 12] = [
    ("5xx", 0.1),
    ("5xx-sent", 0.1),
    ("503", 0.1),
    ("cut", 0.1),
    ("cut-before", 0.05),
    ("never", 0.05),
    ("slow", 0.1),
    ("429", 0.05),
    ("late", 0.2),
    ("lost", 0.1),
    ("THROTTLED", 0.1),
    ("PREVIOUSLY_BOUNCED", 0.1),
];
/// What may last for hours.
const SPELLS: [&str; 14] = [
    "401",
    "403",
    "402",
    "477",
    "429",
    "daily",
    "500",
    "503",
    "5xx",
    "cut",
    "never",
    "301",
    "PORTAL_SUSPENDED",
    "PORTAL_OVER_LIMIT",
];
/// The longest spell.
const SPELL_MAX_SECS: u64 = 4 * 3_600;

pub(super) struct Weather {
    /// In the sandbox's words.
    pub(super) text: String,
    /// When the last spell is over.
    pub(super) until: Duration,
}

pub(super) fn draw(rng: &mut fastrand::Rng, span: Duration) -> Weather {
    let mut parts = Vec::new();
    for (word, most) in SHARES {
        if rng.f64() < 0.2 {
            parts.push(format!("{word}={:.3}", most * rng.f64()));
        }
    }
    let mut until = Duration::ZERO;
    for word in SPELLS {
        if rng.f64() < 0.1 {
            let from = span.mul_f64(rng.f64());
            let length = Duration::from_secs(match rng.u32(0..3) {
                0 => rng.u64(5..120),
                1 => rng.u64(60..1_800),
                _ => rng.u64(60..SPELL_MAX_SECS),
            });
            until = until.max(from + length);
            parts.push(format!("{word}={}s+{}s", from.as_secs(), length.as_secs()));
        }
    }
    Weather {
        text: parts.join(","),
        until,
    }
}
