//! Valv on a real cluster: each test is a sentence that a user of Valv relies on.

mod ready;
