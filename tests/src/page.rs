//! The pages of `docs/`, whose blocks of shell are run as they stand.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// The blocks of shell on a page of `docs/`, from `heading` on.
///
/// # Errors
/// If there is no such page, or no such heading on it.
pub fn blocks(page: &str, heading: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(Path::new(DOCS).join(page)).with_context(|| format!("docs/{page}"))?;
    let at = text.find(heading).with_context(|| format!("docs/{page} has no {heading:?}"))?;
    let fences = text[at..].split("\n```");
    // A fence opens, the next one closes.
    let fenced = fences.skip(1).step_by(2);
    let shell =
        fenced.filter_map(|block| block.strip_prefix("bash\n").or_else(|| block.strip_prefix("sh\n")));
    Ok(shell.map(|block| format!("{block}\n")).collect())
}

/// The first of them.
///
/// # Errors
/// As [`blocks`], and if there is none.
pub fn block(page: &str, heading: &str) -> Result<String> {
    let blocks = blocks(page, heading)?;
    blocks.into_iter().next().with_context(|| format!("docs/{page} has no shell below {heading:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_a_page_are_found_from_the_heading_on() {
        let all = blocks("backup-format.md", "# ").unwrap();
        let restore = block("backup-format.md", "## Restore without Valv").unwrap();

        assert!(all.contains(&restore) && all.len() > 1);
        assert!(restore.contains("b3sum") && !restore.contains("```"));
        assert!(blocks("backup-format.md", "## No such thing").is_err());
    }
}
