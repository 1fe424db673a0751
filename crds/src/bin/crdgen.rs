//! Prints the custom resource definitions as YAML, or the API's reference as Markdown.
fn main() {
    for definition in valv_crds::definitions() {
        println!("---\n{}", serde_yaml::to_string(&definition).unwrap_or_default());
    }
}
