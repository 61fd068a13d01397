"""What axe-core, a library of accessibility checks, finds on a page."""

from efflab.publishing.site.assets import npm_file

RUN = """async () => {
  const { violations } = await axe.run(document, {resultTypes: ['violations']});
  return violations
    .filter(({impact}) => impact === 'serious' || impact === 'critical')
    .flatMap(({id, nodes}) => nodes.map(node => `${id}: ${node.target} ${node.failureSummary}`));
}"""


def serious(page) -> list[str]:
    """What is serious or critical on the page as it stands, a line a place."""
    script = npm_file("axe-core", "axe.min.js")
    assert script, "axe-core is not there: make setup"
    page.evaluate(script.decode())
    return page.evaluate(RUN)
