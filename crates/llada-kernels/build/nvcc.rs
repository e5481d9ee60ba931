//! The part of the build script that needs a CUDA toolkit and libclang.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Architectures that get machine code: A100, RTX 30, RTX 40, H100, B200, RTX 50. All newer ones
/// compile the PTX when they load it.
const ARCHITECTURES: &str = "80,86,89,90a,100,120";
/// What the PTX is made for: everything from Ampere on can run it.
const PTX: &str = "80";

/// First argument of a run that only binds.
const BIND: &str = "bind";

/// Compiles and binds.
pub(crate) fn run() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [command, header, bindings] = &arguments[..]
        && command == BIND
    {
        return bind_header(header, bindings);
    }
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let kernels = manifest_dir.join("../../kernels").canonicalize()?;
    for variable in [
        "LLADA_NVCC",
        "CUDA_HOME",
        "PATH",
        "LLADA_CUDA_ARCHS",
        "LLADA_CUDA_COMPRESS",
        "LIBCLANG_PATH",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!(
        "cargo::rerun-if-changed={}",
        manifest_dir.join("build").display()
    );
    println!("cargo::rerun-if-changed={}", kernels.display());
    for entry in fs::read_dir(kernels.join("include"))? {
        println!("cargo::rerun-if-changed={}", entry?.path().display());
    }

    bind(&kernels, &out_dir)?;
    let mut sources: Vec<PathBuf> = fs::read_dir(&kernels)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let nvcc = find_nvcc(&out_dir)?;
    compile_all(&nvcc, &kernels, &sources, &out_dir)?;

    let mut table = String::from("&[\n");
    for source in &sources {
        let op = stem(source);
        writeln!(
            table,
            "    Image {{ op: {op:?}, fatbin: aligned!(concat!(env!(\"OUT_DIR\"), \"/{op}.fatbin\")) }},"
        )?;
    }
    table.push(']');
    fs::write(out_dir.join("images.rs"), table)?;
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Where `cargo xtask cuda` puts the toolkit: in a folder of the target folder, which is above
/// this script's own.
fn installed(out_dir: &Path, path: &str) -> Option<PathBuf> {
    let in_cuda = Path::new("cuda").join(path);
    out_dir
        .ancestors()
        .map(|above| above.join(&in_cuda))
        .find(|path| path.exists())
}

fn find_nvcc(out_dir: &Path) -> Result<PathBuf> {
    if let Some(nvcc) = env::var_os("LLADA_NVCC") {
        return Ok(nvcc.into());
    }
    if let Some(home) = env::var_os("CUDA_HOME") {
        return Ok(Path::new(&home).join("bin/nvcc"));
    }
    if let Some(nvcc) = installed(out_dir, "toolkit/bin/nvcc") {
        return Ok(nvcc);
    }
    let in_path = |folder: PathBuf| Some(folder.join("nvcc")).filter(|nvcc| nvcc.exists());
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .find_map(in_path)
        .ok_or_else(|| {
            "the feature `nvcc` needs CUDA's compiler, version 13.0: run `cargo xtask cuda`, which \
         installs it into the target folder, or set LLADA_NVCC or CUDA_HOME"
                .into()
        })
}

/// Compiles on all cores, one `nvcc` per file.
fn compile_all(nvcc: &Path, kernels: &Path, sources: &[PathBuf], out_dir: &Path) -> Result<()> {
    let architectures = env::var("LLADA_CUDA_ARCHS").unwrap_or_else(|_| ARCHITECTURES.to_owned());
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let jobs = env::var("NUM_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(1_usize);
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, sources.len().max(1)) {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fatbin = out_dir.join(stem(source)).with_extension("fatbin");
                    if let Err(error) = compile(nvcc, kernels, source, &fatbin, &architectures) {
                        failures
                            .lock()
                            .unwrap_or_else(|e| e.into_inner())
                            .push(error.to_string());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n").into())
    }
}

/// One fatbin: machine code for each architecture, and PTX. It is not compressed, so that its PTX
/// can be read as text; line numbers map instructions to the `.cu` file. With
/// `LLADA_CUDA_COMPRESS=1` it is compressed and without line numbers, a twelfth of the size: for
/// programs that are given away, since the software device does not read it.
fn compile(
    nvcc: &Path,
    kernels: &Path,
    source: &Path,
    fatbin: &Path,
    architectures: &str,
) -> Result<()> {
    let mut command = Command::new(nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin"]);
    if env::var("LLADA_CUDA_COMPRESS").is_ok_and(|on| on == "1") {
        command.arg("--compress-mode=size");
    } else {
        command.args(["-no-compress", "-lineinfo"]);
    }
    command.args(["--Werror", "all-warnings"]);
    command.arg("-I").arg(kernels.join("include"));
    // nvcc hands host code to the compiler that cc finds for this target.
    command
        .arg("-ccbin")
        .arg(compiler().cpp(true).try_get_compiler()?.path());
    for architecture in architectures.split(',').filter(|name| *name != "ptx") {
        command.arg(format!(
            "-gencode=arch=compute_{architecture},code=sm_{architecture}"
        ));
    }
    command.arg(format!("-gencode=arch=compute_{PTX},code=compute_{PTX}"));
    command.arg("-o").arg(fatbin).arg(source);
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", nvcc.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{}:\n{}", source.display(), String::from_utf8_lossy(&text)).into())
}

/// Rust's view of the argument structs, with assertions on every size and offset. It is made by
/// a second run of this program, whose environment can say where libclang is.
fn bind(kernels: &Path, out_dir: &Path) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(BIND)
        .arg(kernels.join("include/llada_kernels.h"))
        .arg(out_dir.join("bindings.rs"));
    if env::var_os("LIBCLANG_PATH").is_none()
        && let Some(folder) = installed(out_dir, "libclang")
    {
        command.env("LIBCLANG_PATH", folder);
    }
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("binding llada_kernels.h: {status}").into())
    }
}

/// Writes the bindings of a header.
fn bind_header(header: &str, bindings: &str) -> Result<()> {
    bindgen::Builder::default()
        .header(header)
        .allowlist_item("[Ll][Ll][Aa][Dd][Aa]_?.*")
        .derive_default(true)
        .layout_tests(true)
        .merge_extern_blocks(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .clang_args(resource_folder())
        .generate()?
        .write_to_file(bindings)?;
    Ok(())
}

/// A libclang without its own headers finds those of the C compiler.
fn resource_folder() -> Option<String> {
    let compiler = compiler().try_get_compiler().ok()?;
    let output = Command::new(compiler.path())
        .arg("-print-file-name=include")
        .output()
        .ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(format!("-I{}", folder.trim()))
}

/// Looks for a compiler without telling cargo what it looked at.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build.cargo_metadata(false);
    build
}
