//! Writes the CustomResourceDefinition to standard output, or to the file that the first argument names.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let yaml = wsfleet_crds::v1alpha1::crd_yaml()?;
    match std::env::args_os().nth(1) {
        Some(path) => std::fs::write(path, yaml)?,
        None => std::io::stdout().write_all(yaml.as_bytes())?,
    }
    Ok(())
}
