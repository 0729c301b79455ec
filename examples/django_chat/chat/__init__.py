"""A product list that is cached, a chat room, and the pages that look after them."""
