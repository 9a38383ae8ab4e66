import pytest

from verbatim import licences


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT AND Zlib\nLicense: x", "MIT AND Zlib"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: see there\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: Public Domain", "BSD License or Public Domain"),
        ("Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: Apache Software License", "Apache-2.0 or MIT"),
        ("License: BSD", "BSD"),
        (f"License: Copyright {'and so on ' * 20}", ""),
        ("Classifier: License :: OSI Approved", ""),
        ("Name: x\n\nLicense: MIT", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_licence_is_what_the_metadata_says_and_unknown_where_it_says_none(metadata, licence):
    assert licences.of_metadata(metadata) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [("Format: https://x\n\nFiles: *\nLicense: GPL-2+\n text\n\nLicense: Expat\n\nLicense: GPL-2+\n", "Expat and GPL-2+"), ("It is free.\nLicense: x", "")],
)  # fmt: skip
def test_a_debian_package_states_its_licences_in_the_machine_readable_form_alone(text, licence):
    assert licences.of_copyright(text) == licence
