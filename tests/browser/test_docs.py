"""/docs in a browser: the viewer works with the files that the service ships."""


def test_the_viewer_lists_the_operations_and_sends_a_request(open_page, address):
    page = open_page(f"{address}docs", ready=".opblock")
    paths = page.locator(".opblock-summary-path").all_inner_texts()
    assert {"/v1/classify", "/v1/embed/batch", "/v1/models", "/livez"} <= {path.replace("\u200b", "") for path in paths}
    models = page.locator(".opblock", has_text="/v1/models").first
    models.locator(".opblock-summary-control").click()
    models.get_by_role("button", name="Try it out").click()
    models.get_by_role("button", name="Execute").click()
    models.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert "illustrations" in models.locator(".live-responses-table").inner_text()
