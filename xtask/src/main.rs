//! Development tasks of the workspace.

mod data;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sh = xshell::Shell::new()?;
    match arguments.split_first() {
        Some((task, rest)) if task == "data" => data::run(&sh, rest),
        _ => anyhow::bail!("usage: cargo xtask data poems"),
    }
}
