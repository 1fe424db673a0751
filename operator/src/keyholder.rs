//! key holder
