"""Install mmqnet.

Beyond the usual, it does three things:

- `configs/`, `tools/` and `model-index.yml` are put under `mmqnet/.mim`, copied into wheels and
  linked in editable installs, where `mim` and `mmengine`'s `_base_ = 'mmqnet::...'` read them.
- `mmqnet_startup.pth` makes Python import mmqnet when it starts, a small package without torch.
  Then MMDetection's and MMPretrain's own tools find `mmqnet::` configs too, and torchvision can be
  imported beside a build of torch that it does not fit.
- The C++ kernel `mmqnet.ops._C` is compiled if torch and a compiler are there. If not, installation
  continues after printing the reason, and the plain PyTorch kernel is used.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmqnet'
MIM_SOURCES = ('configs', 'tools', 'model-index.yml')
EXTRAS = ('onedl', 'openmmlab', 'demo', 'export', 'qonnx', 'litert', 'executorch', 'dev')
STARTUP = 'mmqnet_startup.pth'
# One line, as site.py executes lines. A checkout that has been moved away is no reason to complain.
STARTUP_CODE = """import sys; exec('try:\\n import mmqnet\\nexcept ImportError:\\n pass')\n"""
KERNEL = f'{PACKAGE}.ops._C'
# No -march: the kernel picks its instructions at run time, so a wheel runs on every machine.
# No -ffast-math: what is equal to a threshold has to stay on its side of it.
COMPILE_FLAGS = ['-O3', '-g0', '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast']
# Without it at::parallel_for is a loop of one thread. The runtime is the one that torch has loaded.
OPENMP_FLAGS = ['-fopenmp'] if sys.platform == 'linux' else []


def read_version() -> str:
    scope: dict = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(), scope)
    return scope['__version__']


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def read_readme() -> str:
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


def say_plain_kernel(reason: object) -> None:
    line = ' '.join(str(reason).split())[:200]
    print(f'mmqnet: the C++ kernel {KERNEL} is not built, the plain PyTorch one is used: {line}')


def kernel_extension() -> list[Extension]:
    """Return the C++ kernel, or an empty list after printing why it is left out."""
    sources = sorted((ROOT / PACKAGE / 'ops' / 'csrc').glob('*.cpp'))
    if os.environ.get('MMQNET_WITH_KERNEL') == '0':
        say_plain_kernel('MMQNET_WITH_KERNEL=0')
        return []
    if not sources:
        return []
    try:
        from torch.utils.cpp_extension import CppExtension
    except Exception as error:  # a broken torch fails in ways of its own, not only ImportError
        say_plain_kernel(f'torch cannot be imported here ({error})')
        return []
    names = [str(path.relative_to(ROOT)) for path in sources]
    headers = [str(path.relative_to(ROOT)) for path in sources[0].parent.glob('*.h')]
    extension = CppExtension(
        KERNEL,
        names,
        depends=headers,
        extra_compile_args=[*COMPILE_FLAGS, *OPENMP_FLAGS],
        extra_link_args=OPENMP_FLAGS,
    )
    # Otherwise setuptools would fail when it copies the result into the source tree.
    extension.optional = True
    return [extension]


def kernel_command() -> type:
    """Return torch's build command, changed to report a failed compilation and continue."""
    try:
        from torch.utils.cpp_extension import BuildExtension
    except Exception:
        return build_ext

    class BuildKernel(BuildExtension):
        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:
                say_plain_kernel(error)
                return
            for extension in self.extensions:
                note_torch(Path(self.get_ext_fullpath(extension.name)))

    return BuildKernel


def note_torch(binary: Path) -> None:
    """Write beside the kernel which torch it is made for: `ops/kernel.py` does not load others."""
    import torch

    if binary.exists():
        binary.with_name('_C.torch').write_text(torch.__version__)


def link_mim_files() -> None:
    """Link the sources into the package of this checkout, for editable installs."""
    folder = ROOT / PACKAGE / '.mim'
    folder.mkdir(exist_ok=True)
    for name in MIM_SOURCES:
        target = folder / name
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        if (ROOT / name).exists():
            target.symlink_to(os.path.relpath(ROOT / name, folder))


def copy_mim_files(package_folder: Path) -> None:
    """Copy the sources into a package that is being built."""
    folder = package_folder / '.mim'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
    for name in MIM_SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        elif source.exists():
            shutil.copy2(source, folder / name)


class BuildPackage(build_py):
    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim_files()
            packed = self.get_finalized_command('install').install_lib  # the editable wheel
            Path(packed, STARTUP).write_text(STARTUP_CODE)
        else:
            copy_mim_files(Path(self.build_lib) / PACKAGE)
            Path(self.build_lib, STARTUP).write_text(STARTUP_CODE)


class DevelopPackage(develop):
    def run(self) -> None:
        super().run()
        link_mim_files()


setup(
    name=PACKAGE,
    version=read_version(),
    description='Quantization Networks for MMEngine, MMDetection and MMPretrain',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    author='The mmqnet authors',
    license='Apache License 2.0',
    keywords='quantization, object detection, image classification, low-bit networks',
    classifiers=[
        'Development Status :: 4 - Beta',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', 'ops/csrc/*.cpp', 'ops/csrc/*.h']},
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in EXTRAS},
    ext_modules=kernel_extension(),
    cmdclass={'build_py': BuildPackage, 'develop': DevelopPackage, 'build_ext': kernel_command()},
    zip_safe=False,
)
