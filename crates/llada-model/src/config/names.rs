//! Which fields a configuration may have.

use super::ModelConfig;
use crate::family::llada::SUPPORTED_VALUES;

impl ModelConfig {
    /// Names of all fields with a meaning: those of this type, and those of the reference that may
    /// have one value alone. A `config.json` of others may have more, which change nothing.
    ///
    /// # Panics
    /// Never: the preset exists, and every field is representable in JSON.
    #[must_use]
    pub fn field_names() -> Vec<String> {
        let mut config = crate::preset("llada-25m").expect("a preset");
        // Left out where it is false.
        config.causal = true;
        let own = serde_json::to_value(&config).expect("plain fields and strings");
        let own = own
            .as_object()
            .expect("a configuration is an object")
            .keys();
        let of_reference = SUPPORTED_VALUES.iter().map(|(name, _)| (*name).to_owned());
        own.cloned().chain(of_reference).collect()
    }
}
