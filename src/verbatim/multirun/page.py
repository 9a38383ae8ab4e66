def page(results, folder):
    return "<p>"
